"""Rank x resampling frequency as a heat map, with LoRA of the same rank beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Summary, Task, summarise
from rosa.report.figures import style
from rosa.report.tables.rank_frequency import RankMap, rank_maps

COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "grid", "rank", "resampling", "row", "lr"),
    *("n", "seeds", "scores", "mean", "deviation"),
)
MAP = "cividis"
"""Perceptually uniform colour map, readable in greyscale and with colour vision deficiency; lighter is higher."""


def heat_maps(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture per map of ranks and periods, one panel per task.

    Returns:
        The pictures, and what could not be drawn: no rows form a map.
    """
    found = rank_maps(comparison.rows)
    if not found:
        return [], ["no two ranks were run with the same two times between resamples"]
    pictures = []
    for number, rank_map in enumerate(found):
        with style.styled():
            drawing = _draw(comparison, rank_map)
        parts = ("rank-frequency", *([str(number + 1)] if len(found) > 1 else []))
        name = style.file_name(comparison, *parts)
        pictures.append(style.Picture(name, COLUMNS, tuple(_lines(comparison, rank_map)), drawing))
    return pictures, []


def _row_at(rank_map: RankMap, rank: float, column: int) -> Row | None:
    if column == len(rank_map.periods):
        return rank_map.beside.get(rank)
    return rank_map.cells.get((rank, rank_map.periods[column]))


def _summary(row: Row | None, task: Task) -> Summary | None:
    return None if row is None else summarise(row.scores(task).values())


def _lines(comparison: Comparison, rank_map: RankMap) -> Iterator[dict[str, Any]]:
    for task in comparison.tasks:
        for rank in rank_map.ranks:
            for number, column in enumerate(rank_map.columns):
                row = _row_at(rank_map, rank, number)
                place = {
                    "experiment": comparison.experiment,
                    "model": comparison.rows[0].model,
                    "task": task.name,
                    "split": task.splits[0],
                    "metric": task.metric,
                    "rule": comparison.rule,
                    "grid": rank_map.label,
                    "rank": rank,
                    "resampling": column,
                }
                summary = _summary(row, task)
                if row is None or summary is None:
                    yield {**place, "n": 0}
                    continue
                trial = row.results[task.name].selected
                scores = trial.scores(task.splits[0], task.metric)
                yield {
                    **place,
                    "row": row.label,
                    "lr": formatting.rate(trial.lr),
                    "n": summary.n,
                    "seeds": " ".join(map(str, scores)),
                    "scores": " ".join(map(str, scores.values())),
                    "mean": summary.mean,
                    "deviation": summary.deviation,
                }


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw(comparison: Comparison, rank_map: RankMap) -> Figure:
    tasks = comparison.tasks
    columns = min(len(tasks), 2)
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(style.WIDTH, (0.36 * len(rank_map.ranks) + 1.0) * lines + 0.5))
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, task in zip(panels, tasks, strict=False):
        _panel(figure, axes, rank_map, task)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    caption = (
        f"{style.heading(comparison)}, {rank_map.label}: {style.seeds(tasks)}, mean ± standard deviation, "
        f"{comparison.epoch}. Empty: no finished run."
    )
    figure.suptitle(style.wrapped(caption, style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _panel(figure: Figure, axes: Axes, rank_map: RankMap, task: Task) -> None:
    names = rank_map.columns
    summaries = [[_summary(_row_at(rank_map, rank, i), task) for i in range(len(names))] for rank in rank_map.ranks]
    scale = formatting.scale(task.metric)
    means = np.array([[scale * found.mean if found else math.nan for found in line] for line in summaries])
    norm = Normalize(float(np.nanmin(means)), float(np.nanmax(means))) if np.isfinite(means).any() else Normalize(0, 1)
    image = axes.imshow(means, cmap=MAP, norm=norm, aspect="auto")
    for y, line in enumerate(summaries):
        for x, found in enumerate(line):
            if found:
                text = formatting.mean_and_deviation(found.mean, found.deviation, task.metric)
                other = f"\nn = {found.n}" if found.n != len(task.seeds) else ""
                axes.text(x, y, text + other, ha="center", va="center", fontsize=7, color=_ink(norm(means[y, x])))
    if rank_map.beside:
        axes.axvline(len(rank_map.periods) - 0.5, color="white", linewidth=3)
    axes.set_xticks(range(len(names)), [name.replace("every ", "every\n") for name in names])
    axes.set_yticks(range(len(rank_map.ranks)), [str(rank) for rank in rank_map.ranks])
    axes.set_xlabel("time between resamples")
    axes.set_ylabel("rank")
    axes.set_title(formatting.task_name(task.name))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=style.wrapped(formatting.score_label(task), 1.6), fraction=0.06, pad=0.02)


def _ink(share: float) -> str:
    """Black or white, whichever has more contrast (WCAG 2 relative luminance; both are equal at 0.179)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colormaps[MAP](share)[:3]
    )
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"
