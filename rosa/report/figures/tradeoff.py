"""Figures of quality against cost: trainable parameters, training state and peak memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task, frozen, summarise
from rosa.report.figures import style
from rosa.report.looks import MOST, Look, looks_of
from rosa.report.tables.costs import PEAK, STATE, TRAINABLE, Quantity, measured

COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "series", "row", "lr"),
    *("quantity", "cost", "n", "seeds", "scores", "mean", "deviation"),
)
FIGURES = {"parameters": TRAINABLE, "training-state": STATE, "memory": PEAK}
"""Part of the file name -> quantity on the axis."""
RANK = "method.rank"


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
    """One picture per cost: a panel per task, a line per set of rows that differ by rank alone.

    Returns:
        The pictures, and what could not be drawn: costs that no finished run has measured; and, with more series than
        looks, the series of a single rank whose method has other series.
    """
    pictures = []
    series, left_out = _told_apart(_series(comparison.rows))
    for name, quantity in FIGURES.items():
        lines = tuple(_lines(comparison, series, quantity))
        if not lines:
            left_out.append(f"no finished run has measured: {quantity.name}")
            continue
        with style.styled():
            drawing = _draw(comparison, series, quantity)
        pictures.append(style.Picture(style.file_name(comparison, "quality", name), COLUMNS, lines, drawing))
    return pictures, left_out


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
    """The series to draw, and those left out if there are more series than looks."""
    if len(series) <= MOST:
        return series, []
    methods = [rows[0].method for rows in series.values()]
    kept = {label: rows for label, rows in series.items() if len(rows) > 1 or methods.count(rows[0].method) == 1}
    return kept, [f"{label}: one rank alone (see the ablation's figure)" for label in series if label not in kept]


def _points(rows: Sequence[Row], task: Task, quantity: Quantity) -> list[Point]:
    found = []
    for row in rows:
        costs = [value for (name, _), value in measured(row, quantity).items() if name == task.name]
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


def _draw(comparison: Comparison, series: Series, quantity: Quantity) -> Figure:
    tasks = comparison.tasks
    columns = min(len(tasks), 3)
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(style.WIDTH, 2.3 * lines + 0.9 + 0.14 * len(series)))
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    looks = looks_of([rows[0].method for rows in series.values()])
    for axes, task in zip(panels, tasks, strict=False):
        for (label, rows), look in zip(series.items(), looks, strict=True):
            _line(axes, _points(rows, task, quantity), task, look, label)
        axes.set_title(style.task_name(task))
        axes.set_ylabel(style.score_label(task))
        axes.set_xlabel(quantity.name)
        axes.grid()
        if quantity is TRAINABLE:
            axes.set_xscale("log")
            _make_readable(axes)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    style.legend_below(figure, panels[: len(tasks)], "")
    figure.suptitle(style.wrapped(_caption(comparison, series, quantity), style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _make_readable(axes: Axes) -> None:
    """Put few labels on the logarithmic axis, formatted like counts in tables."""
    lowest, highest = axes.get_xlim()
    decades = math.log10(highest / lowest)
    steps = (1, 1.5, 2, 3, 5, 7) if decades < 0.7 else (1, 2, 5) if decades < 2 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _caption(comparison: Comparison, series: Series, quantity: Quantity) -> str:
    spread = ": mean ± standard deviation" if any(len(task.seeds) > 1 for task in comparison.tasks) else ""
    what = {
        TRAINABLE.key: "adapter and head",
        STATE.key: "weights, gradients and optimizer state",
        PEAK.key: "the GPU's, or without one the process's",
    }
    ranks = " Numbers at points are ranks." if any(len(rows) > 1 for rows in series.values()) else ""
    shown = [row for rows in series.values() for row in rows]
    return (
        f"{style.heading(comparison)}: {style.seeds(comparison.tasks)}{spread}, {comparison.epoch}. "
        f"{quantity.name}: {what[quantity.key]}.{ranks}{style.fewer_seeds(shown, comparison.tasks)}"
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
