"""Draw the experiments' figures as inline SVG, with ids that are unique within the page."""

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
"""Title -> drawing function. The diagnostics by layer are too many and large; ``make figures`` writes them."""
MANY = ("what each setting does", "headline by epoch", "loss by epoch")
"""Figures that have a row of panels for each setting that varies."""
PANELS = 120
"""Largest number of panels on a page, to limit drawing time and file size."""
MOST = 24
"""Largest number of panels in a figure that is legible on a page."""

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", LINK[1:-5])


@dataclass(frozen=True)
class FigureView:
    """A figure on the page."""

    title: str
    file: str
    """Path under the figures' folder without extension, where ``make figures`` writes it and its numbers (csv)."""
    svg: str


class Drawings:
    """Draws the figures of one page, up to a limit of panels."""

    def __init__(self, limit: int = PANELS) -> None:
        self._left = limit
        self._drawn = 0

    def of(self, comparison: Comparison) -> tuple[list[FigureView], list[str]]:
        """The figures of one model of an experiment, and the reason for each kind that is left out."""
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
    """Convert an SVG file to an inline element: without prologue or page-wide style, and with prefixed ids.

    Args:
        svg: a file written by matplotlib.
        prefix: prepended to every id.
        label: accessible name (``aria-label``) of the picture.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{SVG}style" or child.tag == f"{SVG}metadata":
                parent.remove(child)
    # The declarations of matplotlib's style element become attributes of the root, so they apply to this drawing alone.
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
    # Explicit closing tags: an empty element then parses equally as HTML and as XML.
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _referred(element: ElementTree.Element) -> Iterator[str]:
    """The ids that an element's attributes refer to."""
    for key, value in element.attrib.items():
        if key == LINK:
            yield value.removeprefix("#")
        yield from re.findall(r"url\(#([^)]+)\)", value)
