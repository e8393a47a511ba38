"""A method has one colour and marker, those of the registry, in every kind of figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RosaConfig, registry
from rosa.report.comparison import Comparison
from rosa.report.figures import style
from rosa.report.figures.ablation import ablation
from rosa.report.figures.costs import costs as cost_bars
from rosa.report.figures.curves import curves
from rosa.report.figures.diagnostics import diagnostics
from rosa.report.figures.forest import forest
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.grouping import compare
from rosa.report.looks import MOST, looks_of, shaded
from tests.report.synthetic_records import costs
from tests.report.test_figures import done

RANKED = [LoraConfig(rank=2), LoraConfig(rank=8), RosaConfig(every=1, rank=2), RosaConfig(every=1, rank=8)]
EVERY: list[MethodConfig] = [FullConfig(), IA3Config(), *RANKED]
Kind = Callable[[Comparison], tuple[list[style.Picture], list[str]]]
ONE_RANK = [FullConfig(), IA3Config(), LoraConfig(), RosaConfig(every=1)]
KINDS: dict[str, tuple[Kind, list[MethodConfig], set[str]]] = {
    "ablation": (ablation, EVERY, {"lora", "rosa"}),
    "costs": (cost_bars, EVERY, {"full", "ia3", "lora", "rosa"}),
    "curves": (curves, EVERY, {"full", "ia3", "lora", "rosa"}),
    "diagnostics": (diagnostics, EVERY, {"lora", "rosa"}),
    "differences": (forest, ONE_RANK, {"full", "ia3", "rosa"}),
    "tradeoffs": (tradeoffs, EVERY, {"full", "ia3", "lora", "rosa"}),
}
"""Kind of figure -> (function, methods of the records, methods that it shows). Heat maps show numbers, not methods."""


def comparison(methods: list[MethodConfig]) -> Comparison:
    found = []
    for method in methods:
        for seed in (0, 1, 2):
            made: dict[str, Any] = done(method, seed)
            made["params"] = {"trainable": 1000 * getattr(method, "rank", 3), "head": 10, "total": 10**6}
            found.append(made | {"costs": costs(0.01)})
    return compare(found, "study")


def drawn(figure: Figure) -> Iterator[tuple[str, str]]:
    """(colour, marker) of each line, and (colour, empty) of each bar."""
    for axes in figure.axes:
        for line in axes.get_lines():
            yield to_hex(line.get_color()), str(line.get_marker())
        for patch in axes.patches:
            if isinstance(patch, Rectangle):
                yield to_hex(patch.get_facecolor()), ""


def looks_in(kind: Kind, methods: list[MethodConfig]) -> set[tuple[str, str]]:
    pictures, _ = kind(comparison(methods))
    assert pictures
    return {look for picture in pictures for look in drawn(picture.drawing)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_looks_the_same_in_every_kind_of_figure(kind: str) -> None:
    draw, methods, shown = KINDS[kind]
    assert_shown(kind, looks_in(draw, methods), shown)


def assert_shown(kind: str, found: set[tuple[str, str]], shown: set[str]) -> None:
    for name in shown:
        look = registry.look(name)
        assert (look.color, "" if kind == "costs" else look.marker) in found, f"{name} is not drawn as {look}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_looks_the_same_beside_fewer_others(kind: str) -> None:
    draw, methods, shown = KINDS[kind]
    few = looks_in(draw, [method for method in methods if method.name in ("lora", "rosa")])
    assert_shown(kind, few, shown - {"full", "ia3"})
    assert not {registry.look(name).color for name in ("full", "ia3")} & {color for color, _ in few}


@pytest.mark.parametrize("methods", [["rosa"] * MOST, ["full", *["lora"] * 4, "ia3", *["rosa"] * 4]])
def test_series_of_a_panel_can_be_told_apart(methods: list[str]) -> None:
    looks = looks_of(methods)
    assert len({look.marker for look in looks}) == len(methods)
    assert len({(look.color, look.line) for look in looks}) == len(methods)
    for name in set(methods):
        first = looks[methods.index(name)]
        assert (first.color, first.marker) == (registry.look(name).color, registry.look(name).marker)


@pytest.mark.parametrize(("shade", "expected"), [(0, "#804020"), (1, "#ffffff"), (-1, "#000000"), (0.5, "#c0a090")])
def test_shades_are_mixed_with_black_or_white(shade: float, expected: str) -> None:
    assert shaded("#804020", shade) == expected
