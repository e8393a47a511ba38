"""Whether the learning rate that one seed chose holds on other seeds."""

from __future__ import annotations

from rosa import records
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task, Trial
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table
from rosa.report.tuned import HELD, HELD_FROM_ZERO, holds, tuned_score


def rates_table(comparison: Comparison) -> Table:
    """The score of each learning rate of the study in tuning (one seed) and on the other seeds."""
    shown = [
        (row, task, trial)
        for task in comparison.tasks
        for row in comparison.rows
        if task.name in row.results
        for trial in row.results[task.name].trials
    ]
    lines = [
        text(
            "Rate: the one that won in tuning, and what else was run. Tuned: its score there, on the holdout of one "
            "seed. Seeds: the same score of the study's runs. It does not hold where one of them "
            f"has less than {HELD:.0%} of what the tuned score has above a constant answer, or less than "
            f"{HELD_FROM_ZERO:.0%} of the tuned score where a constant answer has none. A rate that is almost too high "
            "can win on one seed and fail on another; the difference then shows the rate, not the method. Where the "
            "tuned score is hardly above a constant answer, no rate can hold but by chance."
        )
    ]
    again = [
        f"{row.label} on {formatting.TASK_NAMES.get(task.name, task.name)} ({formatting.rate(trial.lr)})"
        for row, task, trial in shown
        if len(row.results[task.name].trials) > 1 and trial is row.results[task.name].selected
    ]
    if again:
        lines.append(
            text(
                f"Rows that were run at several rates: {len(again)}. All other tables show the one with the highest "
                f"mean on the holdouts: {'; '.join(again)}. The others had the tuned rate alone."
            )
        )
    header = ("Task", "Method", "Rate", "Tuned", "Seeds", "Holds")
    rows = tuple(_rate_line(comparison, row, task, trial) for row, task, trial in shown)
    return Table("rates", "The rate that one seed chose, on others", header, rows, tuple(lines))


def _rate_line(comparison: Comparison, row: Row, task: Task, trial: Trial) -> tuple[Cell, ...]:
    result = row.results[task.name]
    before, kept = tuned_score(result, trial.lr, task), holds(comparison, task, result, trial)
    scores = [records.score(run, trial.rule) for run in trial.scored.values()]
    shown = {None: formatting.MISSING, False: "no", True: "yes"}[kept]
    return (
        Cell(formatting.TASK_NAMES.get(task.name, task.name)),
        Cell(row.label),
        Cell(formatting.rate(trial.lr)),
        Cell(formatting.MISSING if before is None else formatting.score(before, task.metric)),
        Cell(", ".join(formatting.score(score, task.metric) for score in scores) or formatting.MISSING),
        Cell(shown, bold=kept is False),
    )
