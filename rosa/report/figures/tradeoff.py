"""Figures of quality against cost: trainable parameters, bytes stored, memory and time."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.figures import style
from rosa.report.figures.layout import Grid
from rosa.report.front import front
from rosa.report.grouping import frozen
from rosa.report.looks import MOST, Look, looks_of
from rosa.report.tables.costs import (
    ABOVE,
    CHECKPOINT,
    PEAK,
    STATE,
    STEP,
    TRAINABLE,
    Quantity,
    measured,
    memory_of,
    of_several_machines,
)

COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "series", "row", "lr"),
    *("quantity", "cost", "n", "seeds", "scores", "mean", "deviation"),
)
COSTS = (TRAINABLE, CHECKPOINT, STATE, STEP)
"""The costs that scores are set against, before :func:`memory_of` the rows."""
RANK = "method.rank"
HEIGHT = 1.0
"""Height of a panel in inches."""
ZEROS = re.compile(r"\.?0+(?=[KM]$)")
"""Trailing zeros of a count, as in ``10.00M`` and ``0.10M``."""
WRITTEN: Mapping[Quantity, Callable[[float], str]] = {
    TRAINABLE: lambda value: ZEROS.sub("", formatting.count(value)),
    CHECKPOINT: lambda value: f"{value:.2g}" if value < 100 else f"{value:.0f}",
}
"""The quantities with a logarithmic axis, and how their values are written on it."""
STEPS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""The labels within a decade of a logarithmic axis, ever fewer."""
BESIDE = 0.45
"""Inches between panels, for the labels of the vertical axis."""
CLOSE = 1.5
"""A logarithmic axis from one value to less than so many times as much would have labels at too many or no places."""


@dataclass(frozen=True)
class Point:
    """One row of one task."""

    row: Row
    lr: float
    cost: float
    """Cost in the axis's unit."""
    scores: dict[int, float]
    """Seed -> score, as recorded."""


Series = dict[str, list[Row]]
"""Label -> rows that differ by rank alone, by ascending rank."""


def tradeoffs(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture: a row of panels per task, a column per cost, a line per set of rows that differ by rank alone.

    The memory is a device's peak, or else what the process held above its baseline: a process's whole peak, with all
    libraries, hardly tells methods apart.

    Returns:
        The picture, and what could not be drawn: costs that no finished run has measured, or several machines have;
        and, with more series than looks, the series of a single rank whose method has other series.
    """
    series, left_out = _told_apart(_series(comparison.rows))
    asked = (*COSTS, memory_of(comparison.rows))
    lines = {quantity: tuple(_lines(comparison, series, quantity)) for quantity in asked}
    left_out += [f"no finished run has measured: {one.name}" for one, found in lines.items() if not found]
    for quantity in asked:
        if of_several_machines(comparison.rows, quantity):
            lines[quantity] = ()
            left_out.append(f"measured on several machines: {quantity.name}")
    shown = [quantity for quantity, found in lines.items() if found]
    if not shown:
        return [], left_out
    with style.styled():
        drawing = _draw(comparison, series, shown)
    rows = tuple(line for quantity in shown for line in lines[quantity])
    return [style.Picture(style.file_name(comparison, "quality"), COLUMNS, rows, drawing)], left_out


def _series(rows: Sequence[Row]) -> Series:
    grouped: dict[Any, list[Row]] = {}
    for row in rows:
        rest = {key: value for key, value in row.settings.items() if key != RANK}
        grouped.setdefault(frozen(rest), []).append(row)
    found = {}
    for members in grouped.values():
        members.sort(key=lambda row: float(row.settings.get(RANK, 0)))
        label = members[0].label
        if len(members) > 1:
            # The points are labelled with the ranks.
            label = label.replace(f" r={members[0].settings[RANK]}", "", 1)
        found[label] = members
    return found


def _told_apart(series: Series) -> tuple[Series, list[str]]:
    """The series to draw, and those left out because there are more series than looks."""
    if len(series) <= MOST:
        return series, []
    methods = [rows[0].method for rows in series.values()]
    kept = {label: rows for label, rows in series.items() if len(rows) > 1 or methods.count(rows[0].method) == 1}
    return kept, [f"{label}: one rank alone (see the ablation's figure)" for label in series if label not in kept]


def _points(rows: Sequence[Row], task: Task, quantity: Quantity) -> list[Point]:
    found = []
    for row in rows:
        costs = [value for (name, *_), value in measured(row, quantity).items() if name == task.name]
        if costs:
            trial = row.results[task.name].selected
            scores = trial.scores(task.splits[0], task.metric)
            found.append(Point(row, trial.lr, statistics.fmean(costs) / quantity.unit, scores))
    return found


def _lines(comparison: Comparison, series: Series, quantity: Quantity) -> Iterator[dict[str, Any]]:
    for label, rows in series.items():
        for task in comparison.tasks:
            for point in _points(rows, task, quantity):
                summary = summarise(point.scores.values())
                yield {
                    "experiment": comparison.experiment,
                    "model": point.row.model,
                    "task": task.name,
                    "split": task.splits[0],
                    "metric": task.metric,
                    "rule": comparison.rule,
                    "series": label,
                    "row": point.row.label,
                    "lr": formatting.rate(point.lr),
                    "quantity": quantity.name,
                    "cost": point.cost,
                    "n": len(point.scores),
                    "seeds": " ".join(map(str, point.scores)),
                    "scores": " ".join(map(str, point.scores.values())),
                    "mean": summary.mean if summary else None,
                    "deviation": summary.deviation if summary else None,
                }


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw(comparison: Comparison, series: Series, shown: Sequence[Quantity]) -> Figure:
    tasks = comparison.tasks
    figure = Figure(figsize=(style.WIDTH, HEIGHT * len(tasks)), layout=Grid([HEIGHT] * len(tasks)))
    grid = figure.subplots(len(tasks), len(shown), squeeze=False)
    looks = looks_of([rows[0].method for rows in series.values()])
    width = style.WIDTH / len(shown) - BESIDE
    for line, task in zip(grid, tasks, strict=True):
        for axes, quantity in zip(line, shown, strict=True):
            found = {label: _points(rows, task, quantity) for label, rows in series.items()}
            _front(axes, [point for points in found.values() for point in points], task)
            for (label, points), look in zip(found.items(), looks, strict=True):
                _line(axes, points, task, look, label)
            axes.set_xlabel(style.wrapped(quantity.name, width))
            axes.grid()
            style.few_ticks(axes.yaxis)
            style.few_ticks(axes.xaxis, 3)
            costs = [point.cost for points in found.values() for point in points]
            if not costs:
                _say_missing(axes)
            elif quantity in WRITTEN:
                _make_readable(axes, WRITTEN[quantity], costs, width)
        line[0].set_title(formatting.task_name(task.name), loc="left")
        line[0].set_ylabel(style.wrapped(formatting.score_label(task), HEIGHT))
    style.legend_below(figure, list(grid.flat), "")
    figure.suptitle(style.wrapped(_caption(comparison, series, shown), style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _front(axes: Axes, points: Sequence[Point], task: Task) -> None:
    """Draw the best mean score at each cost or below, as a dotted line."""
    scored = [(point.cost, found.mean) for point in points if (found := summarise(point.scores.values()))]
    if len(scored) > 1:
        best = front(scored, task.lower_is_better)
        costs = [*(cost for cost, _ in best), max(cost for cost, _ in scored)]
        heights = [formatting.scale(task.metric) * mean for _, mean in best]
        axes.step(costs, [*heights, heights[-1]], where="post", color="#aaaaaa", linestyle=":", linewidth=0.8)


def _say_missing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", fontsize=7)


def _make_readable(axes: Axes, write: Callable[[float], str], costs: Sequence[float], inches: float) -> None:
    """Make the axis logarithmic, unless all costs are close, with as many labels as fit, like numbers in tables."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    if min(costs) <= 0 or max(costs) < CLOSE * min(costs):
        return
    axes.set_xscale("log")
    lowest, highest = axes.get_xlim()
    decades = math.log10(highest / lowest)
    chosen = STEPS[0 if decades < 0.7 else 1 if decades < 2 else 3 :]
    fitting = [steps for steps in chosen if _length(_labelled(steps, lowest, highest), write) <= inches]
    axes.xaxis.set_major_locator(LogLocator(subs=(fitting or chosen[-1:])[0], numticks=3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _labelled(steps: Sequence[float], lowest: float, highest: float) -> list[float]:
    """The values within a range that are a power of ten times one of the steps."""
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)))
    return [value for power in powers for step in steps if lowest <= (value := step * 10.0**power) <= highest]


def _length(values: Sequence[float], write: Callable[[float], str]) -> float:
    """Inches of the values side by side, with a space after each."""
    return style.CHARACTER * sum(len(write(value)) + 1 for value in values)


def _caption(comparison: Comparison, series: Series, shown: Sequence[Quantity]) -> str:
    spread = ": mean ± standard deviation" if any(len(task.seeds) > 1 for task in comparison.tasks) else ""
    what = {
        TRAINABLE.key: "Trainable parameters: adapter and head.",
        STATE.key: "Training state: weights, gradients and optimizer state.",
        STEP.key: "Steps are those of the runs themselves, whatever else the machine did.",
        PEAK.key: "Peak memory: the device's.",
        ABOVE.key: "Memory above baseline: the most that the process held, less what it held before the run.",
        CHECKPOINT.key: "Checkpoint: what restores the model beside the pretrained one.",
    }
    ranks = " Numbers at points are ranks." if any(len(rows) > 1 for rows in series.values()) else ""
    drawn = [row for rows in series.values() for row in rows]
    lacking = any(
        len(_points(drawn, task, quantity)) < sum(task.name in row.results for row in drawn)
        for task in comparison.tasks
        for quantity in shown
    )
    absent = " Rows whose runs did not record a cost have no point at it." if lacking else ""
    return (
        f"{style.heading(comparison)}: {style.seeds(comparison.tasks)}{spread}, {comparison.epoch}. Dotted: the best "
        f"score that is to be had up to each cost. {' '.join(what[quantity.key] for quantity in shown)}{ranks}{absent}"
        f"{style.other_seeds(drawn, comparison.tasks)}"
    )


def _line(axes: Axes, points: Sequence[Point], task: Task, look: Look, label: str) -> None:
    scale = formatting.scale(task.metric)
    summaries = [summarise(point.scores.values()) for point in points]
    shown = [(point, summary) for point, summary in zip(points, summaries, strict=True) if summary]
    if not shown:
        return
    axes.errorbar(
        [point.cost for point, _ in shown],
        [scale * summary.mean for _, summary in shown],
        yerr=[scale * (summary.deviation or 0) for _, summary in shown],
        color=look.color, marker=look.marker, linestyle=look.line, elinewidth=0.6, capsize=1.5, label=label,
    )  # fmt: skip
    for point, summary in shown if len(shown) > 1 else ():
        axes.annotate(
            str(point.row.settings[RANK]), (point.cost, scale * summary.mean), xytext=(3, 3),
            textcoords="offset points", fontsize=6, color=look.color,
        )  # fmt: skip
