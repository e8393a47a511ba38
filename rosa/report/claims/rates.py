"""Whether the learning rate that one seed chose holds on other seeds."""

from __future__ import annotations

from rosa import records
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

HELD = 0.5
"""A tuned learning rate fails on a seed whose score is below this share of its score in tuning."""


def rates_table(comparison: Comparison) -> Table:
    """The score of each tuned learning rate in tuning (one seed) and on the other seeds."""
    shown = [(row, task) for task in comparison.tasks for row in comparison.rows if task.name in row.results]
    again = [
        f"{row.label} on {formatting.TASK_NAMES.get(task.name, task.name)} ({', '.join(map(formatting.rate, rates))})"
        for row, task in shown
        if len(rates := [trial.lr for trial in row.results[task.name].trials]) > 1
    ]
    lines = [
        text(
            "Tuned: the score of the winning rate in tuning, on the holdout of its one seed. Seeds: the same score of "
            f"the study's runs. It does not hold where one of them is below {HELD:.0%} of it: a rate at the edge of "
            "what training bears wins on one seed and fails on another, and the differences above then speak of the "
            "rate and not of the method."
        )
    ]
    if again:
        lines.append(
            text(f"Of several rates that all seeds were run with, the best on the holdout: {'; '.join(again)}.")
        )
    header = ("Task", "Method", "Rate", "Tuned", "Seeds", "Holds")
    rows = tuple(_rate_line(row, task) for row, task in shown)
    return Table("rates", "The rate that one seed chose, on others", header, rows, tuple(lines))


def _rate_line(row: Row, task: Task) -> tuple[Cell, ...]:
    result = row.results[task.name]
    trial = result.selected
    # Of all runs, as those of the shown rate have no grid if it was asked for by hand.
    tuned = {
        entry["score"]
        for run in result.runs
        for entry in (run["tuning"] or {"grid": []})["grid"]
        if entry["lr"] == trial.lr
    }
    scores = [records.score(run, trial.rule) for run in trial.scored.values()]
    before = max((score for score in tuned if score is not None), default=None)
    holds = formatting.MISSING if before is None else "no" if min(scores, default=before) < HELD * before else "yes"
    return (
        Cell(formatting.TASK_NAMES.get(task.name, task.name)),
        Cell(row.label),
        Cell(formatting.rate(trial.lr)),
        Cell(formatting.MISSING if before is None else formatting.score(before, task.metric)),
        Cell(", ".join(formatting.score(score, task.metric) for score in scores) or formatting.MISSING),
        Cell(holds, bold=holds == "no"),
    )
