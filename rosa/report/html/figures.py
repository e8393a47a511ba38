"""The figures of the page: what each experiment found at a glance, and scores by epoch, as grids of small charts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.histories import points
from rosa.report.html import charts
from rosa.report.looks import MOST, Look, looks_of, selections
from rosa.report.significance import LEVEL, lora_of
from rosa.report.tables.costs import (
    CHECKPOINT,
    STATE,
    STEP,
    TRAINABLE,
    Quantity,
    measured,
    memory_of,
    of_several_machines,
    ratio,
)
from rosa.report.tables.differences import Difference
from rosa.report.tables.results import averages

ROWS = 30
"""Largest number of rows in a chart of differences."""
PANELS = 36
"""Largest number of charts in a grid; of the curves, in all grids together."""
COSTS = (TRAINABLE, CHECKPOINT, STATE)
"""The costs that scores are set against, before :func:`memory_of` the rows and the time of a step."""


@dataclass(frozen=True)
class FigureView:
    """A grid of charts on the page."""

    title: str
    panels: tuple[str, ...]
    """SVG."""
    legend: tuple[tuple[str, str], ...]
    """Entries: SVG of a mark, and what it stands for."""
    caption: str


def looks_by_row(rows: Sequence[Row]) -> dict[str, Look]:
    """Row label -> look: one of its own, or the look of its method if there are more rows than looks."""
    methods = [row.method for row in rows]
    found = looks_of(methods) if len(rows) <= MOST else [looks_of([method])[0] for method in methods]
    return dict(zip((row.label for row in rows), found, strict=True))


def differences_figure(comparison: Comparison, found: Sequence[Difference]) -> FigureView | None:
    """A chart per task: each row's difference from LoRA with its interval; None if no row can be compared with LoRA."""
    if not found or len({one.row.label for one in found}) > ROWS or len(comparison.tasks) > PANELS:
        return None
    looks = looks_by_row(comparison.rows)
    panels = []
    for task in comparison.tasks:
        rows = [_interval(one, looks[one.row.label]) for one in found if one.task is task]
        if rows:
            panels.append(
                charts.intervals(formatting.task_name(task.name), f"{formatting.score_label(task)}, less LoRA's", rows)
            )
    several = any(one.paired.interval for one in found)
    tests = sum(one.p_holm is not None for one in found)
    names = list(dict.fromkeys(one.paired.against for one in found))
    against = names[0] if len(names) == 1 else "LoRA of the same rank, or of the nearest size,"
    caption = (
        f"Mean over seeds of the score less that of {against} with the same seed, and its {1 - LEVEL:.0%} interval. "
        "The line is LoRA; an interval that contains it shows no difference. Each interval is computed alone; better "
        f"and worse, above, are p < {LEVEL:g} corrected for all {tests} tests (Holm), so an interval beside the line "
        "can be open. Each task has its own scale."
        if several
        else f"Score less that of {against}, one seed: no interval, so differences of any size may be chance."
    )
    return FigureView("Difference from LoRA by task", tuple(panels), (), caption)


def _interval(one: Difference, look: Look) -> charts.Interval:
    scale, metric = formatting.scale(one.task.metric), one.task.metric
    mean = one.paired.difference or 0.0
    text = formatting.signed_score(mean, metric)
    low, high = one.paired.interval or (None, None)
    if low is not None and high is not None:
        text += f" ({formatting.signed_score(low, metric)} to {formatting.signed_score(high, metric)})"
        return charts.Interval(one.row.label, look, scale * mean, scale * low, scale * high, text)
    return charts.Interval(one.row.label, look, scale * mean, None, None, text)


# --- score against cost ----------------------------------------------------------------------------------------------


def costs_figure(comparison: Comparison) -> FigureView | None:
    """A chart per cost: each row's score against it, with the front: the best score at each cost or a lower one.

    With several tasks costs are ratios to a LoRA row's, since tasks differ in batches and lengths, and the score is the
    mean over tasks. None if the tasks have no mean, or fewer than two rows have both.
    """
    tasks = comparison.tasks
    if len({(formatting.scale(task.metric), task.lower_is_better) for task in tasks}) != 1:
        return None
    several = len(tasks) > 1
    shown_rows = [row for row in comparison.rows if (averages(row, comparison) if several else row.scores(tasks[0]))]
    scores = {row.label: _mean_score(row, tasks) for row in shown_rows}
    reference = _reference(comparison.rows) if several else None
    looks = looks_by_row(comparison.rows)
    panels = []
    for quantity in (*COSTS, memory_of(comparison.rows), STEP):
        if not several and of_several_machines(comparison.rows, quantity):
            continue  # ratios are of one machine each
        costs = {row.label: _cost(row, quantity, reference, several) for row in comparison.rows}
        shown = [
            charts.Point(label, looks[label], cost, score, f"{_written(score, tasks[0])}, {cost:.3g}")
            for label, score in scores.items()
            if (cost := costs[label])
        ]
        if len(shown) > 1:
            axis = quantity.name if reference is None else f"{quantity.name.split(' (')[0]}, × {reference.label}'s"
            unit = formatting.score_label(tasks[0]) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
            panels.append(charts.scatter(quantity.name.split(" (")[0], unit, axis, shown, tasks[0].lower_is_better))
    if not panels:
        return None
    left_out = [row.label for row in comparison.rows if row.label not in scores]
    why = (
        " is missing, or its learning rate there failed on a seed and would decide the mean"
        if several
        else " is missing"
    )
    lacking = f" Not shown, since a task{why}: {', '.join(left_out)}." if left_out else ""
    caption = (
        "Dashed: the front, the best score at each cost or a lower one. Times are those of the runs themselves, "
        f"whatever else the machine did.{lacking}"
    )
    return FigureView("Score against cost", tuple(panels), _legend(shown_rows, looks), caption)


def _mean_score(row: Row, tasks: Sequence[Task]) -> float:
    means = [statistics.fmean(row.scores(task).values()) for task in tasks]
    return formatting.scale(tasks[0].metric) * statistics.fmean(means)


def _reference(rows: Sequence[Row]) -> Row | None:
    """The LoRA row that most rows are compared with."""
    found = [other for row in rows if (other := lora_of(row, rows)) is not None]
    labels = Counter(row.label for row in found)
    return max(found, key=lambda row: labels[row.label], default=None)


def _cost(row: Row, quantity: Quantity, reference: Row | None, relative: bool) -> float | None:
    own = measured(row, quantity)
    if not own:
        return None
    if relative:
        return ratio(own, measured(reference, quantity)) if reference is not None else None
    return statistics.fmean(own.values()) / quantity.unit


def _written(score: float, task: Task) -> str:
    return formatting.score(score / formatting.scale(task.metric), task.metric)


def _legend(rows: Sequence[Row], looks: dict[str, Look]) -> tuple[tuple[str, str], ...]:
    """One entry per row, or one per method if there are more rows than looks."""
    if len(rows) <= MOST:
        return tuple((charts.mark(looks[row.label], line=False), row.label) for row in rows)
    methods = {row.method: formatting.method_label({"name": row.method}, ()) for row in rows}
    return tuple((charts.mark(looks_of([method])[0], line=False), label) for method, label in methods.items())


# --- curves ----------------------------------------------------------------------------------------------------------


def curves_figures(comparison: Comparison) -> tuple[list[FigureView], list[str]]:
    """The score by epoch: a chart per task and set of rows; one grid if all sets have the same legend.

    Returns:
        The grids, and what is left out.
    """
    chosen = selections(comparison.rows)
    sets: list[tuple[str, dict[str, Look], list[str]]] = []
    for selection in chosen:
        looks = dict(zip(selection.labels, selection.looks, strict=True))
        panels = []
        for task in comparison.tasks:
            series = [
                _curve(row, task, label, looks[label])
                for row, label in zip(selection.rows, selection.labels, strict=True)
            ]
            if any(len(one.points) > 1 for one in series):
                name = ", ".join(filter(None, (formatting.task_name(task.name), selection.title)))
                panels.append(charts.lines(name, f"{formatting.score_label(task)}, {task.splits[0]}", "epoch", series))
        if panels:
            sets.append((selection.title, looks, panels))
    if sets and all(looks == sets[0][1] for _, looks, _ in sets):
        sets = [("", sets[0][1], [panel for _, _, panels in sets for panel in panels])]
    if sum(len(panels) for *_, panels in sets) > PANELS:
        return [], [f"scores by epoch: more than {PANELS} charts; make figures draws them"]
    several = any(len(task.seeds) > 1 for task in comparison.tasks)
    spread = "Mean, and a band from the lowest to the highest seed. " if several else ""
    cut = "The axes show the range of the adapters; full fine-tuning is drawn at their edge where it is outside."
    caption = spread + (cut if any(row.method == "full" for row in comparison.rows) else "")
    return [
        FigureView(
            "Score by epoch" + (f": {title}" if title else ""),
            tuple(panels),
            tuple((charts.mark(look), label) for label, look in looks.items()),
            caption,
        )
        for title, looks, panels in sets
    ], []


def _curve(row: Row, task: Task, label: str, look: Look) -> charts.Series:
    scale = formatting.scale(task.metric)
    found = [
        (point.epoch, scale * point.mean, scale * min(point.values.values()), scale * max(point.values.values()))
        for point in points(row, task, task.metric)
    ]
    return charts.Series(label, look, tuple(found), row.method != "full")


def rates_figures(comparison: Comparison) -> list[FigureView]:
    """The score by learning rate: a chart per task, a line per row; empty if no row has several rates."""
    if len(comparison.rows) > MOST:
        return []
    looks = looks_by_row(comparison.rows)
    panels = []
    for task in comparison.tasks:
        series = [charts.Series(row.label, looks[row.label], tuple(_rates(row, task))) for row in comparison.rows]
        if any(len(one.points) > 1 for one in series):
            panels.append(
                charts.lines(
                    formatting.task_name(task.name), formatting.score_label(task), "learning rate", series, log_x=True
                )
            )
    legend = tuple((charts.mark(look), label) for label, look in looks.items())
    caption = "Mean over the seeds of each learning rate; the table of the grid marks the one that each row chooses."
    return [FigureView("Score by learning rate", tuple(panels), legend, caption)] if panels else []


def _rates(row: Row, task: Task) -> Iterator[tuple[float, float, float, float]]:
    scale = formatting.scale(task.metric)
    for trial in row.results[task.name].trials if task.name in row.results else ():
        found = [scale * value for value in trial.scores(task.splits[0], task.metric).values()]
        if found and trial.lr > 0:
            yield trial.lr, statistics.fmean(found), min(found), max(found)
