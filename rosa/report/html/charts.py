"""Small charts as SVG text: intervals around zero, points with a front, lines. Pure functions of numbers and looks.

Each is one panel of a grid on the page, :data:`WIDTH` units wide, which the browser scales. The numbers of a mark are
in its ``title``, which a browser shows under the pointer and a screen reader reads.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rosa.report.front import front
from rosa.report.looks import Look

WIDTH = 300
CHARACTERS = 52
"""Number of characters of the small font that fit into a chart's width."""
LINE = 31
"""Height of one row of a chart of intervals, which holds a label and the interval below it."""
EXTRA = 13
"""Additional height of a row whose label and numbers do not fit side by side."""
DASHES = {"-": "", "--": "6 3", "-.": "7 3 2 3", ":": "2 3"}
"""Line style -> SVG's dash array."""
SHAPES = {
    "s": "M-4-4H4V4H-4Z",
    "^": "M0-5L5 4H-5Z",
    "v": "M0 5L5-4H-5Z",
    "<": "M-5 0L4-5V5Z",
    ">": "M5 0L-4-5V5Z",
    "D": "M0-5.5L5.5 0L0 5.5L-5.5 0Z",
    "P": "M-2-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
    "X": "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
    "*": "M0-6L1.6-2H5.7L2.5.8L3.6 5L0 2.4L-3.6 5L-2.5.8L-5.7-2H-1.6Z",
    "o": "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1-4.5 0Z",
}
"""matplotlib's name of a marker -> its path, about ten units wide."""


@dataclass(frozen=True)
class Interval:
    """A difference with its interval; ``low`` and ``high`` are None without one."""

    label: str
    look: Look
    mean: float
    low: float | None
    high: float | None
    text: str
    """The numbers, as they are written beside the label."""


@dataclass(frozen=True)
class Point:
    """A point of a scatter chart."""

    label: str
    look: Look
    x: float
    y: float
    text: str
    """The numbers, as they are written in the mark's title."""


@dataclass(frozen=True)
class Series:
    """A line with a band: x, mean, lowest, highest."""

    label: str
    look: Look
    points: tuple[tuple[float, float, float, float], ...]
    leads: bool = True
    """Whether the range of the axes includes it; the other series are cut off at the range's ends."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` round numbers (1, 2 or 5 times a power of ten) from ``low`` to ``high``."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    factor = next(f for f in (1, 2, 5, 10, 20) if (high - low) / (f * step) <= most - 0.999 or f == 20)
    step *= factor
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers of a short range; powers of ten of a longer one, with 2 and 5 times them up to two of them."""
    if high / low < 4:
        return [one for one in ticks(low, high) if one > 0]
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 2.2 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil(decades / 5))
    found = [s * 10.0**n for n in range(first, last + 1, every) for s in steps]
    return [one for one in found if low <= one * 1.0001 and one <= high * 1.0001]


def number(value: float) -> str:
    """A tick's label: ``1.5``, ``20K``, ``1e-8``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}K"
    return f"{value:g}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0)


def mark(look: Look, line: bool = True) -> str:
    """The marker of a series for a legend, on its line or alone; hidden from screen readers, which read the label."""
    across = f'<path d="M1 6H29" stroke="{look.color}" stroke-width="2"{_dash(look)}/>' if line else ""
    width = 30 if line else 12
    return (
        f'<svg class="mark" width="{width}" height="12" viewBox="0 0 {width} 12" aria-hidden="true">'
        f"{across}{_shape(look, width / 2, 6)}</svg>"
    )


def intervals(title: str, unit: str, rows: Sequence[Interval]) -> str:
    """A row per difference around a line at zero."""
    ends = [0.0, *(end for row in rows for end in (row.mean, row.low, row.high) if end is not None)]
    scale, low, high = _linear(min(ends), max(ends), 12, WIDTH - 12)
    longer = [EXTRA * (len(row.label) + len(row.text) > CHARACTERS) for row in rows]
    bottom = 26 + LINE * len(rows) + sum(longer)
    out = [_grid_below(scale, ticks(low, high), 24, bottom), _text(WIDTH / 2, bottom + 28, unit, "middle")]
    out.append(f'<path d="M{scale(0):.1f} 20V{bottom}" stroke="#1b1f24" stroke-width="1.2"/>')
    for place, row in enumerate(rows):
        y = 42 + LINE * place + sum(longer[: place + 1])
        label = row.label if len(row.label) <= CHARACTERS else f"{row.label[: CHARACTERS - 1]}…"
        # The line at zero and the grid pass behind what is written.
        out.append(_text(4, y - 9 - longer[place], label, "start", "over"))
        out.append(_text(WIDTH - 4, y - 9, row.text, "end", "over"))
        line = ""
        if row.low is not None and row.high is not None:
            left, right = scale(row.low), scale(row.high)
            path = f"M{left:.1f} {y}H{right:.1f}M{left:.1f} {y - 3}v6M{right:.1f} {y - 3}v6"
            line = f'<path d="{path}" stroke="{row.look.color}" stroke-width="1.8"/>'
        out.append(_titled(f"{row.label}: {row.text}", line + _shape(row.look, scale(row.mean), y)))
    return _panel(title, bottom + 34, out)


def scatter(title: str, unit: str, axis: str, points: Sequence[Point], lower_is_better: bool) -> str:
    """Points over a logarithmic axis of cost, and the front: the best score at each cost or a lower one."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    across, left, right = _logarithmic(min(xs), max(xs), 46, WIDTH - 14)
    up, low, high = _linear(min(ys), max(ys), 164, 40)
    out = [_grid_below(across, log_ticks(left, right), 32, 168), _grid_beside(up, ticks(low, high), 46)]
    out += [_text(WIDTH / 2 + 16, 197, axis, "middle"), _text(4, 26, unit)]
    (first_x, first_y), *further = front(zip(xs, ys, strict=True), lower_is_better)
    path = f"M{across(first_x):.1f} {up(first_y):.1f}"
    path += "".join(f"H{across(x):.1f}V{up(y):.1f}" for x, y in further) + f"H{WIDTH - 4}"
    out.append(f'<path d="{path}" stroke="#57606a" stroke-dasharray="3 3" fill="none"/>')
    for point in points:
        out.append(_titled(f"{point.label}: {point.text}", _shape(point.look, across(point.x), up(point.y))))
    return _panel(title, 203, out)


def lines(title: str, unit: str, axis: str, series: Sequence[Series], log_x: bool = False) -> str:
    """Lines with bands; the vertical axis is fitted to the series that lead."""
    shown = [one for one in series if one.points]
    leading = [one for one in shown if one.leads] or shown
    xs = [x for one in shown for x, *_ in one.points]
    ys = [y for one in leading for _, *values in one.points for y in values]
    across, left, right = (_logarithmic if log_x else _linear)(min(xs), max(xs), 46, WIDTH - 10)
    up, low, high = _linear(min(ys), max(ys), 164, 40)
    below = log_ticks(left, right) if log_x else ticks(left, right)
    out = [_grid_below(across, below, 32, 168), _grid_beside(up, ticks(low, high), 46)]
    out += [_text(WIDTH / 2 + 16, 197, axis, "middle"), _text(4, 26, unit)]

    def inside(y: float) -> float:
        # Points outside the range are drawn on its edge.
        return up(min(max(y, low), high))

    for one in shown:
        path = "L".join(f"{across(x):.1f} {inside(mean):.1f}" for x, mean, *_ in one.points)
        if any(lowest < highest for _, _, lowest, highest in one.points):
            there = "L".join(f"{across(x):.1f} {inside(highest):.1f}" for x, _, _, highest in one.points)
            back = "L".join(f"{across(x):.1f} {inside(lowest):.1f}" for x, _, lowest, _ in reversed(one.points))
            out.append(f'<path d="M{there}L{back}Z" fill="{one.look.color}" opacity="0.13"/>')
        every = max(1, len(one.points) // 8)
        marks = "".join(_shape(one.look, across(x), inside(mean), 0.7) for x, mean, *_ in one.points[::every])
        stroke = f'fill="none" stroke="{one.look.color}" stroke-width="1.8"{_dash(one.look)}'
        out.append(_titled(one.label, f'<path d="M{path}" {stroke}/>{marks}'))
    return _panel(title, 203, out)


# --- pieces ----------------------------------------------------------------------------------------------------------

Scale = Callable[[float], float]


def _linear(low: float, high: float, start: float, end: float) -> tuple[Scale, float, float]:
    """A scale from values to places, with a margin of a twentieth; and the values at its ends."""
    margin = (high - low) / 20 or abs(high) / 20 or 1.0
    low, high = low - margin, high + margin
    return lambda value: start + (value - low) / (high - low) * (end - start), low, high


def _logarithmic(low: float, high: float, start: float, end: float) -> tuple[Scale, float, float]:
    scale, left, right = _linear(math.log10(low), math.log10(high), start, end)
    return lambda value: scale(math.log10(value)), 10**left, 10**right


def _grid_below(scale: Scale, values: Iterable[float], top: float, bottom: float) -> str:
    return "".join(
        f'<path d="M{scale(value):.1f} {top}V{bottom}" stroke="#dfe3e8"/>'
        + _text(scale(value), bottom + 14, number(value), "middle", "tick")
        for value in values
    )


def _grid_beside(scale: Scale, values: Iterable[float], left: float) -> str:
    return "".join(
        f'<path d="M{left} {scale(value):.1f}H{WIDTH - 4}" stroke="#dfe3e8"/>'
        + _text(left - 5, scale(value) + 4, number(value), "end", "tick")
        for value in values
    )


def _panel(title: str, height: float, parts: Iterable[str]) -> str:
    name = _escaped(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{name}">'
        f"{_text(4, 11, title, 'start', 'name')}{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    placed = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{placed}{named}>{_escaped(text)}</text>'


def _shape(look: Look, x: float, y: float, size: float = 1.0) -> str:
    scaled = f" scale({size:g})" if size != 1 else ""
    place = f"translate({x:.1f} {y:.1f}){scaled}"
    return f'<path transform="{place}" d="{SHAPES[look.marker]}" fill="{look.color}" stroke="#fff" stroke-width="0.6"/>'


def _titled(title: str, shapes: str) -> str:
    return f"<g><title>{_escaped(title)}</title>{shapes}</g>"


def _dash(look: Look) -> str:
    dashes = DASHES[look.line]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _escaped(text: str) -> str:
    return html.escape(text)
