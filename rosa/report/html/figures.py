"""The experiments' figures, to stand in one page: what is drawn, and svg whose ids do not meet those of another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree

from rosa.report.comparison import Comparison
from rosa.report.figures.ablation import ablation
from rosa.report.figures.costs import costs
from rosa.report.figures.curves import curves
from rosa.report.figures.rank_frequency import heat_maps
from rosa.report.figures.style import Picture, selections
from rosa.report.figures.tradeoff import tradeoffs

KINDS: dict[str, Callable[[Comparison], tuple[list[Picture], list[str]]]] = {
    "what each setting does": ablation,
    "rank and time between resamples": heat_maps,
    "quality against parameters and memory": tradeoffs,
    "headline by epoch": curves,
    "loss by epoch": partial(curves, metric="loss"),
    "costs": costs,
}
"""Title of a figure -> what draws it. The diagnostics by layer are many and large: ``make figures`` writes them."""
MANY = ("what each setting does", "headline by epoch", "loss by epoch")
"""Those that have a row of panels for each setting that varies."""
PANELS = 120
"""At most this many panels on a page: each takes time to draw, and room in the file."""
MOST = 24
"""At most this many panels in a figure: more can hardly be read on a page."""

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", LINK[1:-5])


@dataclass(frozen=True)
class FigureView:
    """A figure on the page."""

    title: str
    file: str
    """Under the figures' folder, without its ending: where ``make figures`` writes it, with its numbers as csv."""
    svg: str


class Drawings:
    """Draws the figures of one page until it has enough panels."""

    def __init__(self, limit: int = PANELS) -> None:
        self._left = limit
        self._drawn = 0

    def of(self, comparison: Comparison) -> tuple[list[FigureView], list[str]]:
        """The figures of one model of an experiment, and for each kind that is not there the reason."""
        figures, left_out = [], []
        for title, draw in KINDS.items():
            panels = len(comparison.tasks) * (len(selections(comparison.rows)) if title in MANY else 1)
            if panels > min(self._left, MOST):
                left_out.append(f"{title}: its {panels} panels are too many for this page; make figures draws it.")
                continue
            pictures, reasons = draw(comparison)
            left_out += [f"{title}: {reason}." for reason in reasons]
            for picture in pictures:
                self._left -= len(picture.drawing.axes)
                self._drawn += 1
                svg = inline(picture.image("svg"), f"drawing{self._drawn}-", title)
                figures.append(FigureView(title, picture.name, svg))
        return figures, left_out


def inline(svg: bytes, prefix: str, label: str) -> str:
    """An svg file as an element of a page: no prologue, no style that would reach the page, and ids of its own.

    Args:
        svg: as matplotlib writes it.
        prefix: what every id gets in front.
        label: what the picture is called where it cannot be seen.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{SVG}style" or child.tag == f"{SVG}metadata":
                parent.remove(child)
    # What matplotlib's style element says of all elements, in a place from which it reaches this drawing alone.
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "role": "img", "aria-label": label}
    referred = {name for element in root.iter() for name in _referred(element)}
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in referred:
            element.set("id", prefix + name)
        for key, value in element.attrib.items():
            if key == LINK:
                element.set(key, value.replace("#", f"#{prefix}", 1))
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
    # Spelt out, an empty element reads the same as HTML and as XML.
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _referred(element: ElementTree.Element) -> Iterator[str]:
    """The ids that an element's attributes name."""
    for key, value in element.attrib.items():
        if key == LINK:
            yield value.removeprefix("#")
        yield from re.findall(r"url\(#([^)]+)\)", value)
