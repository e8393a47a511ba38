"""Costs figure: a bar per row, a row of panels per task, a column per quantity."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rosa.config import registry
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.figures import style
from rosa.report.figures.layout import Grid
from rosa.report.significance import lora_of
from rosa.report.tables.costs import (
    FORGOTTEN,
    LOADING,
    PEAK,
    RESAMPLE,
    STATE,
    STEP,
    THROUGHPUT,
    Key,
    Quantity,
    measured,
    of_several_machines,
    ratio,
)

QUANTITIES = (STEP, RESAMPLE, THROUGHPUT, LOADING, STATE, PEAK, FORGOTTEN)
"""The columns: as many as can be read side by side."""

COLUMNS = (
    "experiment",
    "model",
    "task",
    "row",
    "quantity",
    "n",
    "mean",
    "lowest",
    "highest",
    "lora_row",
    "ratio_to_lora",
)


def costs(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture: the mean over seeds, with a whisker from the lowest to the highest run; tasks differ in batches.

    Returns:
        The picture, and what could not be drawn: nothing was measured, or a quantity on several machines.
    """
    found = [quantity for quantity in QUANTITIES if any(measured(row, quantity) for row in comparison.rows)]
    shown = [quantity for quantity in found if not of_several_machines(comparison.rows, quantity)]
    left_out = [f"measured on several machines: {quantity.name}" for quantity in found if quantity not in shown]
    if not shown:
        return [], left_out or ["no finished run has measured its costs"]
    with style.styled():
        drawing = _draw(comparison, shown)
    rows = tuple(_lines(comparison, shown))
    return [style.Picture(style.file_name(comparison, "costs"), COLUMNS, rows, drawing)], left_out


def _of(row: Row, quantity: Quantity, task: Task) -> dict[Key, float]:
    return {key: value for key, value in measured(row, quantity).items() if key[0] == task.name}


def _values(row: Row, quantity: Quantity, task: Task) -> list[float]:
    return [value / quantity.unit for value in _of(row, quantity, task).values()]


def _lines(comparison: Comparison, shown: Sequence[Quantity]) -> Iterator[dict[str, Any]]:
    for task, row, quantity in itertools.product(comparison.tasks, comparison.rows, shown):
        lora = lora_of(row, comparison.rows)
        values = _values(row, quantity, task)
        if values:
            yield {
                "experiment": comparison.experiment,
                "model": row.model,
                "task": task.name,
                "row": row.label,
                "quantity": quantity.name,
                "n": len(values),
                "mean": statistics.fmean(values),
                "lowest": min(values),
                "highest": max(values),
                "lora_row": lora.label if lora else None,
                "ratio_to_lora": ratio(_of(row, quantity, task), _of(lora, quantity, task))
                if lora and quantity.has_ratio
                else None,
            }


def _draw(comparison: Comparison, shown: Sequence[Quantity]) -> Figure:
    rows, tasks = comparison.rows, comparison.tasks
    heights = [0.17 * len(rows) + 0.05] * len(tasks)
    figure = Figure(figsize=(style.WIDTH, sum(heights)), layout=Grid(heights))
    grid = figure.subplots(len(tasks), len(shown), sharey=True, squeeze=False)
    for line, task in zip(grid, tasks, strict=True):
        for axes, quantity in zip(line, shown, strict=True):
            _bars(axes, rows, quantity, task)
            axes.set_xlim(left=min((0, *(edge for row in rows for edge in _values(row, quantity, task)))))
            axes.margins(x=0.25)
            style.few_ticks(axes.xaxis, 2)
            axes.grid(axis="x")
            axes.yaxis.set_visible(axes is line[0])
        line[0].tick_params(axis="y", length=0)
        line[0].set_title(formatting.task_name(task.name), loc="left")
    for axes, quantity in zip(grid[-1], shown, strict=True):
        axes.set_xlabel(style.wrapped(quantity.name, 1.1))
    grid[0][0].set_yticks(range(len(rows)), [row.label for row in rows])
    grid[0][0].set_ylim(len(rows) - 0.4, -0.6)
    caption = (
        f"{style.heading(comparison)}; {style.seeds(tasks)}: mean of the runs, and a line from "
        "the lowest to the highest. Times are those of the runs themselves, whatever else the machine did."
        f"{style.other_seeds(rows, tasks)}"
    )
    figure.suptitle(style.wrapped(caption, style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _bars(axes: Axes, rows: Sequence[Row], quantity: Quantity, task: Task) -> None:
    found = {place: values for place, row in enumerate(rows) if (values := _values(row, quantity, task))}
    means = {place: statistics.fmean(values) for place, values in found.items()}
    colors = [registry.look(rows[place].method).color for place in found]
    axes.barh(list(means), list(means.values()), height=0.7, color=colors)
    lowest, highest = ([edge(values) for values in found.values()] for edge in (min, max))
    axes.hlines(list(found), lowest, highest, color="black", linewidth=0.7)
    for place, mean in means.items():
        axes.annotate(
            formatting.significant(mean), (max(0, *found[place]), place), xytext=(2, 0), textcoords="offset points",
            va="center", fontsize=6,
        )  # fmt: skip
