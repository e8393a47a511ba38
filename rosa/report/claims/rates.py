"""Whether the learning rate that one seed chose holds on other seeds."""

from __future__ import annotations

from collections.abc import Sequence

from rosa import records
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task, Trial
from rosa.report.tables.table import Cell, Table, text
from rosa.report.tuned import HELD, HELD_FROM_ZERO, holds, tuned_score


def rates_table(comparison: Comparison) -> Table:
    """The score of each learning rate of the study in tuning (one seed) and on the other seeds, a line for each row."""
    tasks = comparison.tasks
    shown = [
        (row, task, trial)
        for task in comparison.tasks
        for row in comparison.rows
        if task.name in row.results
        for trial in row.results[task.name].trials
    ]
    lines = [
        text(
            "A cell: the rate that won in tuning, or was run besides; its score in tuning, on the holdout of one "
            "seed; and the lowest and the highest of the same score over the study's seeds. A rate fails where one "
            f"of them has less than {HELD:.0%} of what the tuned score has above a constant answer, or less than "
            f"{HELD_FROM_ZERO:.0%} of the tuned score where a constant answer has none. A rate that is almost too high "
            "can win on one seed and fail on another; the difference then shows the rate, not the method. Where the "
            f"tuned score is hardly above a constant answer, no rate can hold but by chance. {formatting.MISSING}: "
            "not run."
        )
    ]
    again = [
        f"{row.label} on {formatting.task_name(task.name)} ({formatting.rate(trial.lr)})"
        for row, task, trial in shown
        if len(row.results[task.name].trials) > 1 and trial is row.results[task.name].selected
    ]
    if again:
        lines.append(
            text(
                f"Rows that were run at several rates: {len(again)}. All other tables show the one that is best on the "
                f"holdouts, over the seeds that it shares with the rate that has most: {'; '.join(again)}. The others "
                "had the tuned rate alone."
            )
        )
    rows = [
        (
            Cell(row.label),
            *(_cell([_tried(comparison, *one) for one in shown if one[:2] == (row, task)]) for task in tasks),
        )
        for row in comparison.rows
    ]
    header = ("Method", *(formatting.task_name(task.name) for task in tasks))
    return Table("rates", "The rate that one seed chose, on others", header, tuple(rows), tuple(lines))


def _cell(tried: Sequence[tuple[str, bool]]) -> Cell:
    """The rates of one row on one task; bold where one fails."""
    return Cell("; ".join(written for written, _ in tried) or formatting.MISSING, bold=any(fails for _, fails in tried))


def _tried(comparison: Comparison, row: Row, task: Task, trial: Trial) -> tuple[str, bool]:
    """``6e-4: 88.0, 86.0 to 88.8`` of a rate, and whether it fails."""
    result = row.results[task.name]
    before, kept = tuned_score(result, trial.lr, task), holds(comparison, task, result, trial)
    scores = [records.score(run, trial.rule) for run in trial.scored.values()]
    tuned = formatting.MISSING if before is None else formatting.score(before, task.metric)
    ends = dict.fromkeys(formatting.score(one, task.metric) for one in (min(scores), max(scores))) if scores else ()
    reach = " to ".join(ends) or formatting.MISSING
    fails = kept is False
    return f"{formatting.rate(trial.lr)}: {tuned}, {reach}{' (fails)' if fails else ''}", fails
