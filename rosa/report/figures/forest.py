"""Forest plot of the differences from LoRA: a panel per task, a mark with its confidence interval per row."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.figures import style
from rosa.report.figures.layout import Grid
from rosa.report.looks import Look, looks_of
from rosa.report.significance import LEVEL, lora_of
from rosa.report.tables.differences import Difference, differences

COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "row", "lora_row", "n"),
    *("difference", "low", "high", "p", "p_holm", "detectable", "verdict"),
)

LABEL = 3.0
"""Width of the rows' labels in inches, at most; longer ones are wrapped."""


def forest(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture of all rows that have a seed in common with LoRA, if any of them has an interval.

    Returns:
        The picture, and what could not be drawn: rows without seeds to pair, or all.
    """
    found = differences(comparison)
    if not any(one.paired.interval for one in found):
        return [], ["no row has two seeds in common with LoRA, with scores that vary"]
    rows_drawn = [row for row in comparison.rows if any(one.row is row for one in found)]
    left_out = [
        f"{row.label}: no LoRA row to compare it with, or no seed in common"
        for row in comparison.rows
        if row.method != "lora" and row not in rows_drawn
    ]
    with style.styled():
        drawing = _draw(comparison, found, rows_drawn)
    rows = tuple(_lines(comparison, found))
    return [style.Picture(style.file_name(comparison, "differences"), COLUMNS, rows, drawing)], left_out


def _lines(comparison: Comparison, found: Sequence[Difference]) -> Iterator[dict[str, Any]]:
    for one in found:
        low, high = one.paired.interval or (None, None)
        yield {
            "experiment": comparison.experiment,
            "model": one.row.model,
            "task": one.task.name,
            "split": one.task.splits[0],
            "metric": one.task.metric,
            "rule": comparison.rule,
            "row": one.row.label,
            "lora_row": one.paired.against,
            "n": one.paired.n,
            "difference": one.paired.difference,
            "low": low,
            "high": high,
            "p": one.paired.p,
            "p_holm": one.p_holm,
            "detectable": one.detectable,
            "verdict": one.verdict,
        }


def _draw(comparison: Comparison, found: Sequence[Difference], rows: Sequence[Row]) -> Figure:
    labels = [row.label for row in rows]
    looks = dict(zip(labels, looks_of([row.method for row in rows]), strict=True))
    tasks = [task for task in comparison.tasks if any(one.task is task for one in found)]
    shown = [textwrap.fill(label, int(LABEL / style.CHARACTER)) for label in labels]
    height = sum(0.22 + 0.12 * label.count("\n") for label in shown) + 0.1
    figure = Figure(figsize=(style.WIDTH, height), layout=Grid([height]))
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    widest = max(len(line) for label in shown for line in label.split("\n"))
    room = (style.WIDTH - style.CHARACTER * widest) / len(tasks) - 0.1
    for axes, task in zip(panels, tasks, strict=True):
        own = {one.row.label: one for one in found if one.task is task}
        axes.axvline(0, color="black", linewidth=0.8)
        for place, row in enumerate(rows):
            if row.label in own:
                _mark(axes, own[row.label], place, looks[row.label])
                continue
            why = "no common seed" if row.scores(task) else "no score" if task.name in row.results else "not run"
            beside = axes.get_yaxis_transform()  # across the panel, not along its values
            axes.text(0.5, place, why, transform=beside, ha="center", va="center", fontsize=7,
                      bbox={"color": "white", "pad": 1})  # fmt: skip
        axes.set_title(formatting.task_name(task.name))
        axes.set_xlabel(style.wrapped(_difference_label(task), room))
        style.few_ticks(axes.xaxis, max(3, 10 // len(tasks)))
        axes.grid(axis="x")
        axes.yaxis.set_visible(axes is panels[0])
    panels[0].set_yticks(range(len(labels)), shown)
    panels[0].tick_params(axis="y", length=0)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    caption = (
        f"{style.heading(comparison)}: difference from LoRA (the line) and its {1 - LEVEL:.0%} interval, by "
        f"Student's t over the seeds that both have, {style.seeds(tasks)}; {comparison.epoch}."
        f"{style.told_seeds(_paired_seeds(comparison, found))}"
    )
    if not all(one.paired.interval for one in found):
        caption += " Without an interval: one seed, or differences that do not vary."
    figure.suptitle(style.wrapped(caption, style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _paired_seeds(comparison: Comparison, found: Sequence[Difference]) -> Iterator[tuple[str, Task, set[int]]]:
    for one in found:
        lora = lora_of(one.row, comparison.rows)
        shared = one.row.scores(one.task).keys() & (lora.scores(one.task).keys() if lora else set())
        yield one.row.label, one.task, set(shared)


def _difference_label(task: Task) -> str:
    return f"{formatting.score_label(task)}, less LoRA's"


def _mark(axes: Axes, one: Difference, place: int, look: Look) -> None:
    paired, scale = one.paired, formatting.scale(one.task.metric)
    if paired.difference is None:
        return
    mean = scale * paired.difference
    reach = None
    if paired.interval is not None:
        low, high = (scale * end for end in paired.interval)
        reach = [[mean - low], [high - mean]]
    axes.errorbar(
        [mean], [place], xerr=reach, color=look.color, marker=look.marker, linestyle="", elinewidth=0.9, capsize=2
    )
