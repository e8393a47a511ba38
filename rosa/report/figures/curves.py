"""Learning curves of a metric or the loss by epoch: a line per row, a band from the lowest to the highest seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.figures import style
from rosa.report.figures.layout import Grid
from rosa.report.histories import Point, points
from rosa.report.looks import Look, Selection, selections, unselected
from rosa.utils.formatting import DECIMALS

HEADLINE = "headline"
"""Each task's own headline metric."""
HEIGHT = 1.15
"""Height of a panel in inches."""
ENTRY = 0.19
"""Height of an entry of a legend, in inches."""
MOST_COLUMNS = 3
LOGARITHMIC = ("loss", "mse", "perplexity")
"""Metrics with a logarithmic axis."""
COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "panel", "row", "lr", "epoch"),
    *("n", "seeds", "values", "mean", "lowest", "highest"),
)


def curves(comparison: Comparison, metric: str = HEADLINE) -> tuple[list[style.Picture], list[str]]:
    """One picture: a row of panels for all rows of the table (or per varying setting, if many), a column per task.

    Args:
        comparison: the experiment; each row's line is that of its selected learning rate.
        metric: ``headline``, or a name under the first split of the records' history, such as ``loss``.

    Returns:
        The picture, and what could not be drawn.
    """
    with_points = [row for row in comparison.rows if any(_points(row, task, metric) for task in comparison.tasks)]
    if not with_points:
        return [], [f"no finished run has {metric} in its history"]
    chosen = selections(with_points)
    left_out = [f"{label}: differs from no other row by one setting alone"
                for label in unselected(with_points, chosen)]  # fmt: skip
    if not chosen:
        return [], left_out
    rows = tuple(_lines(comparison, chosen, metric))
    with style.styled():
        drawing = _draw(comparison, chosen, metric)
    parts = ("curves",) if metric == HEADLINE else ("curves", metric)
    return [style.Picture(style.file_name(comparison, *parts), COLUMNS, rows, drawing)], left_out


def _metric(task: Task, metric: str) -> str:
    return task.metric if metric == HEADLINE else metric


def _points(row: Row, task: Task, metric: str) -> list[Point]:
    return points(row, task, _metric(task, metric))


def _lines(comparison: Comparison, chosen: Sequence[Selection], metric: str) -> Iterator[dict[str, Any]]:
    for selection in chosen:
        for row in selection.rows:
            for task in comparison.tasks:
                for point in _points(row, task, metric):
                    yield {
                        "experiment": comparison.experiment,
                        "model": row.model,
                        "task": task.name,
                        "split": task.splits[0],
                        "metric": _metric(task, metric),
                        "rule": comparison.rule,
                        "panel": selection.title,
                        "row": row.label,
                        "lr": row.results[task.name].selected.lr,
                        "epoch": point.epoch,
                        "n": len(point.values),
                        "seeds": " ".join(map(str, point.values)),
                        "values": " ".join(map(str, point.values.values())),
                        "mean": point.mean,
                        "lowest": min(point.values.values()),
                        "highest": max(point.values.values()),
                    }


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw(comparison: Comparison, chosen: Sequence[Selection], metric: str) -> Figure:
    tasks = comparison.tasks
    # One selection of many tasks wraps, with its legend below; each of several has a row, with its legend beside.
    columns = min(len(tasks), MOST_COLUMNS) if len(chosen) == 1 else len(tasks)
    heights = [max(HEIGHT, ENTRY * (len(one.rows) + 1)) for one in chosen]
    if len(chosen) == 1:
        heights = [HEIGHT] * -(-len(tasks) // columns)
    figure = Figure(figsize=(style.WIDTH, sum(heights)), layout=Grid(heights))
    shared: Literal["none", "col"] = "none" if len(chosen) == 1 else "col"
    made = figure.subplots(len(heights), columns, sharex=shared, sharey=shared, squeeze=False)
    panels = made.reshape(len(chosen), -1)
    for axes in panels.flat[len(tasks) :] if len(chosen) == 1 else ():
        axes.set_visible(False)
    for line, selection in zip(panels, chosen, strict=True):
        for axes, task in zip(line, tasks, strict=False):
            scale = formatting.scale(_metric(task, metric))
            for row, label, look in zip(selection.rows, selection.labels, selection.looks, strict=True):
                _curve(axes, _points(row, task, metric), look, label, scale)
            axes.set_ylabel(style.wrapped(_axis_label(task, metric), HEIGHT))
            style.few_ticks(axes.yaxis)
            axes.grid(axis="y")
            if _metric(task, metric) in LOGARITHMIC:
                shown = [point for row in selection.rows for point in _points(row, task, metric)]
                _make_logarithmic(axes, shown)
            style.few_ticks(axes.xaxis, 5, whole=True)
            axes.tick_params(labelbottom=True, labelleft=True)
            # All panels of a task have one scale.
            leading = [row for one in chosen for row in one.rows if row.method != "full"]
            _fit(axes, [point for row in leading for point in _points(row, task, metric)], scale)
        if len(chosen) > 1:
            style.legend_beside(list(line), selection.title)
        else:
            style.legend_below(figure, list(line), selection.title)
    for axes, task in zip(panels[0], tasks, strict=False):
        axes.set_title(formatting.task_name(task.name))
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    figure.suptitle(style.wrapped(_caption(comparison, chosen), style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _fit(axes: Axes, found: Sequence[Point], scale: float) -> None:
    """Fit the vertical axis to the adapters, which full fine-tuning would squash where it is far from them."""
    values = [scale * number for point in found for number in point.values.values()]
    if not values:
        return
    low, high = min(values), max(values)
    if axes.get_yscale() == "log":
        margin = (high / low) ** 0.05 if high > low else 1.1
        axes.set_ylim(low / margin, high * margin)
    else:
        margin = (high - low) / 20 or abs(high) / 20 or 1.0
        axes.set_ylim(low - margin, high + margin)


def _axis_label(task: Task, metric: str) -> str:
    name = formatting.scaled_name(_metric(task, metric))
    return f"{task.splits[0]} {name}" if _metric(task, metric) in DECIMALS else name


def _make_logarithmic(axes: Axes, points: Sequence[Point]) -> None:
    """Make the axis logarithmic with plain numbers; it stays linear if a value is not above 0."""
    found = [number for point in points for number in point.values.values()]
    if not found or min(found) <= 0:
        return
    axes.set_yscale("log")
    decades = math.log10(max(found) / min(found))
    steps = (1, 2, 3, 5) if decades < 1 else (1, 3) if decades < 3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _caption(comparison: Comparison, chosen: Sequence[Selection]) -> str:
    splits = ", ".join(dict.fromkeys(task.splits[0] for task in comparison.tasks))
    several = any(len(task.seeds) > 1 for task in comparison.tasks)
    spread = ": mean, and a band from the lowest to the highest" if several else ""
    others = style.other_seeds([row for one in chosen for row in one.rows], comparison.tasks)
    full = any(row.method == "full" for one in chosen for row in one.rows)
    fit = " Axes are fitted to the adapters; full fine-tuning may leave them." if full else ""
    when = f"{splits} after each epoch, {style.seeds(comparison.tasks)}"
    return f"{style.heading(comparison)}: {when}{spread}.{fit}{others}"


def _curve(axes: Axes, points: Sequence[Point], look: Look, label: str, scale: float) -> None:
    if not points:
        return
    epochs = [point.epoch for point in points]
    every = max(1, len(points) // 8)
    axes.plot(epochs, [scale * point.mean for point in points], color=look.color, marker=look.marker,
              linestyle=look.line, markevery=every, label=label)  # fmt: skip
    if any(len(point.values) > 1 for point in points):
        lowest, highest = ([scale * edge(point.values.values()) for point in points] for edge in (min, max))
        axes.fill_between(epochs, lowest, highest, color=look.color, alpha=0.12, linewidth=0)
