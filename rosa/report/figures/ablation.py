"""Ablation figure: scores by the value of one setting, all others fixed; dots for the seeds and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rosa.report import formatting
from rosa.report.ablations import Group, groups, name, reference, value
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.figures import style
from rosa.report.figures.layout import Grid
from rosa.report.looks import Look, looks_of

COLUMNS = (
    *("experiment", "model", "task", "split", "metric", "rule", "factor", "series", "value", "reference", "row"),
    *("lr", "n", "seeds", "scores", "mean", "deviation", "failed_seeds", "running_seeds"),
)
LANE = 0.24
"""Height in inches of one value of one series."""
LEAST_PANEL = 0.95
"""Smallest height of a panel in inches, for the setting's name along the axis."""


def ablation(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture: a row of panels per setting that varies alone, a column per task.

    Returns:
        The picture, and what could not be drawn: no two rows differ by one setting alone.
    """
    chosen = reference(comparison.rows)
    if chosen is None:
        return [], ["no two rows differ by one setting alone"]
    # The reference's series comes first, so that it has the same look in every panel.
    found = {
        varied: sorted(members, key=lambda group: not any(row is chosen for row in group.rows))
        for varied, members in groups(comparison.rows).items()
    }
    rows = tuple(_lines(comparison, found, chosen))
    with style.styled():
        drawing = _draw(comparison, found, chosen)
    return [style.Picture(style.file_name(comparison, "ablation"), COLUMNS, rows, drawing)], []


def _lines(comparison: Comparison, found: Mapping[str, Sequence[Group]], chosen: Row) -> Iterator[dict[str, Any]]:
    for varied, members in found.items():
        for group in members:
            for row in group.rows:
                for task in comparison.tasks:
                    yield {
                        "experiment": comparison.experiment,
                        "model": row.model,
                        "task": task.name,
                        "split": task.splits[0],
                        "metric": task.metric,
                        "rule": comparison.rule,
                        "factor": varied,
                        "series": group.label,
                        "value": value(row, varied),
                        "reference": row is chosen,
                        "row": row.label,
                        **_numbers(row, task),
                    }


def _numbers(row: Row, task: Task) -> dict[str, Any]:
    """Scores as recorded; where there is no run, ``n`` is 0 and there is no mean."""
    if task.name not in row.results:
        return {"n": 0}
    trial = row.results[task.name].selected
    scores = trial.scores(task.splits[0], task.metric)
    summary = summarise(scores.values())
    return {
        "lr": formatting.rate(trial.lr),
        "n": len(scores),
        "seeds": " ".join(map(str, scores)),
        "scores": " ".join(map(str, scores.values())),
        "mean": summary.mean if summary else None,
        "deviation": summary.deviation if summary else None,
        "failed_seeds": " ".join(map(str, trial.failed)),
        "running_seeds": " ".join(map(str, trial.running)),
    }


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw(comparison: Comparison, found: Mapping[str, Sequence[Group]], chosen: Row) -> Figure:
    heights = [max(LANE * sum(len(group.rows) for group in members), LEAST_PANEL) for members in found.values()]
    figure = Figure(figsize=(style.WIDTH, sum(heights)), layout=Grid(heights))
    panels = figure.subplots(len(found), len(comparison.tasks), sharex="col", squeeze=False)
    for line, (varied, members) in zip(panels, found.items(), strict=True):
        for axes, task in zip(line, comparison.tasks, strict=True):
            _panel(axes, task, members, chosen)
            axes.yaxis.set_visible(axes is line[0])
        line[0].set_ylabel(name(varied))
        if len(members) > 1:
            handles = [_handle(group, look) for group, look in zip(members, _looks(members), strict=True)]
            line[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes, task in zip(panels[0], comparison.tasks, strict=True):
        axes.set_title(formatting.task_name(task.name))
    for axes, task in zip(panels[-1], comparison.tasks, strict=True):
        axes.set_xlabel(style.wrapped(formatting.score_label(task), style.WIDTH / (len(comparison.tasks) + 1)))
        style.few_ticks(axes.xaxis, max(2, 10 // len(comparison.tasks)))
    figure.align_ylabels(panels[:, 0])
    figure.suptitle(style.wrapped(_caption(comparison, chosen), style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _caption(comparison: Comparison, chosen: Row) -> str:
    return (
        f"{style.heading(comparison)}: {style.seeds(comparison.tasks)} small, their mean large, "
        f"{comparison.epoch}. Bold, and the line through the mean: {chosen.label}."
    )


def _panel(axes: Axes, task: Task, members: Sequence[Group], chosen: Row) -> None:
    varied = members[0].varied
    order = _values(members)
    bold = set()
    for number, (group, look) in enumerate(zip(members, _looks(members), strict=True)):
        shift = (number - (len(members) - 1) / 2) * 0.8 / len(members)
        for row in group.rows:
            place = order.index(value(row, varied)) + shift
            is_reference = row is chosen
            if is_reference:
                bold.add(value(row, varied))
            _dots(axes, row, task, place, look, is_reference)
    axes.set_yticks(range(len(order)), order)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in bold else "normal")
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="x")


def _dots(axes: Axes, row: Row, task: Task, place: float, look: Look, is_reference: bool) -> None:
    trial = row.results[task.name].selected if task.name in row.results else None
    found = trial.scores(task.splits[0], task.metric).values() if trial else ()
    scores = [formatting.scale(task.metric) * score for score in found]
    if not scores:
        why = "failed" if trial and trial.failed else "running" if trial and trial.running else "no run"
        axes.annotate(why, (0.01, place), xycoords=("axes fraction", "data"), va="center", color="#777777", fontsize=7)
        return
    mean = sum(scores) / len(scores)
    if is_reference:
        axes.axvline(mean, color=look.color, linestyle=look.line, linewidth=0.7)
    axes.plot(scores, [place] * len(scores), look.marker, color=look.color, markersize=3, markerfacecolor="none",
              markeredgewidth=0.6)  # fmt: skip
    axes.plot(
        [mean], [place], look.marker, color=look.color, markersize=6, markeredgecolor="white", markeredgewidth=0.4
    )
    if len(scores) != len(task.seeds):
        axes.annotate(
            f"n = {len(scores)}", (max(scores), place), xytext=(4, 0), textcoords="offset points", va="center",
            color="#777777", fontsize=7,
        )  # fmt: skip


def _values(members: Sequence[Group]) -> list[str]:
    """All values of the groups in the order of the largest group; other values follow their predecessor."""
    order: list[str] = []
    for group in sorted(members, key=lambda group: -len(group.rows)):
        place = 0
        for row in group.rows:
            written = value(row, group.varied)
            if written not in order:
                order.insert(place, written)
            place = order.index(written) + 1
    return order


def _looks(members: Sequence[Group]) -> list[Look]:
    return looks_of([group.rows[0].method for group in members])


def _handle(group: Group, look: Look) -> Line2D:
    return Line2D([], [], color=look.color, marker=look.marker, linestyle="", label=style.wrapped(group.label, 1.3))
