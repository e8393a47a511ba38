"""The page's charts: round ticks within the axes, marks where the numbers say, the front, and text that stays text."""

from __future__ import annotations

import itertools
import math
import random
import re

import pytest

from rosa.config import registry
from rosa.report.html import charts
from rosa.report.looks import Look, looks_of
from tests.report.page_reader import read

LOOK = Look("#0072b2", "s", "-")


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_round_few_and_within_the_axis(seed: int) -> None:
    chance = random.Random(seed)
    low = chance.uniform(-100, 100) * 10 ** chance.randint(-4, 3)
    high = low + 10 ** chance.uniform(-5, 4)
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 * abs(low) <= one <= high + 1e-9 * abs(high) for one in found)
    steps = {round(after - before, 9) for before, after in itertools.pairwise(found)}
    for step in steps:
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1), (900, 1.1e6), (1, 3), (95, 150), (0.3, 40)])
def test_ticks_of_a_logarithmic_axis_are_within_it(low: float, high: float) -> None:
    found = charts.log_ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= one * 1.001 and one <= high * 1.001 for one in found)


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", svg)]


def test_a_mark_stands_right_of_the_line_where_it_is_above_lora() -> None:
    rows = [charts.Interval("a", LOOK, 2, 1, 3, "+2"), charts.Interval("b", LOOK, -1, None, None, "-1")]
    svg = charts.intervals("CoLA", "points", rows)
    (zero,) = re.findall(r'd="M([\d.]+) 20V', svg)
    (right, _), (left, _) = places(svg)
    assert left < float(zero) < right
    (ends,) = re.findall(r'd="M([\d.]+) \d+H([\d.]+)M', svg)
    assert float(ends[0]) < right < float(ends[1])
    assert len(re.findall(r"<title>", svg)) == 2


def test_an_interval_is_written_whole_beside_a_label_of_any_length() -> None:
    numbers = "+1.2 (-4.5 to +6.9)"
    labels = ["LoRA", "RoSA (robust) d=4.17%, sparse part alone", "x" * 90]
    svg = charts.intervals("CoLA", "points", [charts.Interval(label, LOOK, 1, 0, 2, numbers) for label in labels])
    found = re.findall(r'<text x="[\d.]+" y="([\d.]+)"[^>]* class="over">([^<]*)</text>', svg)
    assert [text for _, text in found] == [
        labels[0],
        numbers,
        labels[1],
        numbers,
        "x" * (charts.CHARACTERS - 1) + "…",
        numbers,
    ]
    for (above, label), (below, text), (_, mark) in zip(found[::2], found[1::2], places(svg), strict=True):
        fits = len(label) + len(text) <= charts.CHARACTERS
        assert (above == below) == fits
        assert float(above) <= float(below) < mark
    (height,) = re.findall(r'viewBox="0 0 \d+ (\d+)"', svg)
    assert places(svg)[-1][1] + 40 < int(height)


@pytest.mark.parametrize("lower", [False, True])
def test_the_front_leaves_out_what_is_dearer_and_no_better(lower: bool) -> None:
    sign = -1 if lower else 1
    numbers = {"cheap": (1, 10), "worse": (2, 5), "better": (4, 20), "dear": (8, 20)}
    points = [charts.Point(label, LOOK, x, sign * y, "") for label, (x, y) in numbers.items()]
    svg = charts.scatter("t", "u", "x", points, lower)
    (path,) = re.findall(r'd="(M[^"]*)" stroke="#57606a"', svg)
    where = dict(zip(numbers, places(svg), strict=True))
    assert [float(x) for x in re.findall(r"H([\d.]+)V", path)] == [where["better"][0]]
    assert path.startswith(f"M{where['cheap'][0]:.1f} {where['cheap'][1]:.1f}")


def test_what_leaves_the_axes_of_the_leading_series_runs_along_their_edge() -> None:
    near = charts.Series("near", LOOK, ((1, 50, 50, 50), (2, 60, 60, 60)))
    far = charts.Series("far", LOOK, ((1, 55, 55, 55), (2, 1e6, 1e6, 1e6)), leads=False)
    assert min(y for _, y in places(charts.lines("t", "u", "epoch", [near, far]).replace(" scale(0.7)", ""))) >= 39


def test_text_stays_text_and_every_marker_has_a_shape() -> None:
    nasty = '</svg><script>"&'
    svg = charts.intervals(nasty, nasty, [charts.Interval(nasty, LOOK, 1, 0, 2, nasty)])
    assert read(svg).all("script") == []
    assert set(registry.MARKERS) == set(charts.SHAPES)
    assert all(look.marker in charts.mark(look) or charts.SHAPES[look.marker] in charts.mark(look)
               for look in looks_of(["rosa"] * len(registry.MARKERS)))  # fmt: skip
