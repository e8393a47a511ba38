"""No label of a figure is cut, and no two panels, legends or captions overlap, in whatever number they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RosaConfig
from rosa.report.comparison import Comparison
from rosa.report.figures.ablation import ablation
from rosa.report.figures.costs import costs
from rosa.report.figures.curves import curves
from rosa.report.figures.forest import forest
from rosa.report.figures.layout import GAP, PAD
from rosa.report.figures.style import Picture, styled
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.grouping import compare
from tests.report.synthetic_records import costs as measured
from tests.report.test_figures import done

FEW: list[MethodConfig] = [RosaConfig(every=1), LoraConfig(), FullConfig(), IA3Config()]
MANY: list[MethodConfig] = [
    *(RosaConfig(every=every, rank=rank) for every in (0, 1) for rank in (2, 8, 16)),
    *(RosaConfig(every=1, factorization=one) for one in ("random_add", "random_orthogonal", "svd_add")),
    *(LoraConfig(rank=rank) for rank in (2, 8, 16)),
    FullConfig(),
]
LONG: list[MethodConfig] = [
    RosaConfig(every=1, targets=["*attention*"]),
    RosaConfig(every=1, targets=[f"encoder.layer.{layer}.attention.query" for layer in range(8)]),
    LoraConfig(),
]
TASKS = ("cola", "stsb", "rte", "mrpc")
KINDS: dict[str, Callable[[Comparison], tuple[list[Picture], list[str]]]] = {
    "ablation": ablation,
    "costs": costs,
    "curves": curves,
    "losses": lambda comparison: curves(comparison, "loss"),
    "differences": forest,
    "quality": tradeoffs,
}


def compared(methods: list[MethodConfig], tasks: tuple[str, ...]) -> Comparison:
    found = []
    for place, (method, task, seed) in enumerate(itertools.product(methods, tasks, range(2))):
        run: dict[str, Any] = done(method, seed, task)
        run["params"] = {"trainable": 10 ** (3 + place % 5), "head": 10, "total": 10**8}
        run["costs"] = measured(0.01 * (1 + place)) | {
            "device_bytes": 2**28 + 2**20 * place,
            "checkpoint_bytes": 10 ** (5 + place % 4),
        }
        found.append(run)
    return compare(found, "study")


def parts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """The name and the box of each panel with all of its labels, and of the figure's caption and legend."""
    for number, axes in enumerate(figure.axes):
        box = axes.get_tightbbox() if axes.get_visible() else None
        if box is not None:
            yield f"panel {number}", box
    for text in figure.texts:
        yield text.get_text(), text.get_window_extent()
    for legend in figure.legends:
        yield "legend", legend.get_window_extent()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("methods", "tasks"),
    [(FEW, TASKS[:1]), (FEW, TASKS), (MANY, TASKS[:2])],
    ids=["one task", "many tasks", "many rows"],
)
def test_nothing_is_cut_and_nothing_overlaps(kind: str, methods: list[MethodConfig], tasks: tuple[str, ...]) -> None:
    fits(KINDS[kind](compared(methods, tasks))[0])


def test_long_labels_of_differences_are_wrapped() -> None:
    fits(forest(compared(LONG, TASKS))[0])


def fits(pictures: list[Picture]) -> None:
    for picture in pictures:
        picture.image("svg")
        figure = picture.drawing
        figure.set_dpi(100)
        with styled():
            found = list(parts(figure))
        paper = figure.bbox
        for name, box in found:
            assert box.x0 >= -1, name
            assert box.y0 >= -1, name
            assert box.x1 <= paper.x1 + 1, name
            assert box.y1 <= paper.y1 + 1, name
        for (name, box), (other, second) in itertools.combinations(found, 2):
            width = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert min(width, height) <= 1, f"{name} and {other}"
        assert min(axes.get_window_extent().width for axes in figure.axes) >= 40


def test_the_room_around_panels_is_what_their_labels_need() -> None:
    """One long label moves its own column alone; the height is the sum of the parts."""
    (picture,), _ = curves(compared(FEW, TASKS[:2]))
    picture.image("svg")
    figure = picture.drawing
    figure.set_dpi(100)
    first, second = figure.axes
    assert first.get_position().height * figure.get_figheight() == pytest.approx(1.15)
    assert first.get_position().width == pytest.approx(second.get_position().width)
    between = (second.get_tightbbox().x0 - first.get_tightbbox().x1) / 100  # type: ignore[union-attr]
    assert between == pytest.approx(GAP, abs=0.03)
    assert first.get_tightbbox().x0 / 100 == pytest.approx(PAD, abs=0.03)  # type: ignore[union-attr]
