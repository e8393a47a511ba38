"""Missing results: runs that failed, diverged, are running or were stopped, and seeds without a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rosa.records import Record, Rule, error_line, learning_rate
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.html.runs import DIVERGED, Runs, status

MISSING = "missing"
COUNTED = ("done", "failed", "running", MISSING)
"""Counted states of runs; a diverged run counts as failed, as in the tables."""


@dataclass(frozen=True)
class Gap:
    """One run without a score."""

    row: str
    method: str
    task: str
    lr: str
    """Learning rate as tables write it; empty if the row has no run of the task, so that it is unknown."""
    seed: int
    state: str
    """``failed``, ``diverged``, ``running`` (or stopped) or ``missing``."""
    error: str
    """First line of the error."""
    command: str
    """The command that repeats the run; empty for a missing run."""
    file: str
    """The address of its record."""

    @property
    def task_name(self) -> str:
        """The task's name as in tables."""
        return formatting.task_name(self.task)


def gaps(comparison: Comparison, runs: Runs) -> list[Gap]:
    """All gaps, in the order of the table's rows and columns.

    A seed of ``Task.seeds`` is missing from a cell that has no run of it. Only the learning rate that the table shows
    counts: other rates need not have every seed.
    """
    found = []
    for row in comparison.rows:
        for task in comparison.tasks:
            found += [*_unfinished(row, task, comparison.rule, runs), *_never_started(row, task)]
    return found


def counts(found: Sequence[Record], lacking: Sequence[Gap], rule: Rule) -> Counter[str]:
    """State in ``COUNTED`` -> number of runs."""
    states = Counter(status(run, rule) for run in found)
    states["failed"] += states.pop(DIVERGED, 0)
    states[MISSING] = sum(gap.state == MISSING for gap in lacking)
    return states


def _unfinished(row: Row, task: Task, rule: Rule, runs: Runs) -> Iterator[Gap]:
    trials = row.results[task.name].trials if task.name in row.results else ()
    for trial in trials:
        for run in trial.runs:
            state = status(run, rule)
            if state != "done":
                yield Gap(
                    row.label,
                    row.method,
                    task.name,
                    formatting.rate(learning_rate(run)),
                    run["identity"]["seed"],
                    state,
                    error_line(run),
                    run["command"],
                    runs.file(run),
                )


def _never_started(row: Row, task: Task) -> Iterator[Gap]:
    result = row.results.get(task.name)
    known = {run["identity"]["seed"] for run in result.selected.runs} if result else set()
    lr = formatting.rate(result.selected.lr) if result else ""
    for seed in task.seeds:
        if seed not in known:
            yield Gap(row.label, row.method, task.name, lr, seed, MISSING, "", "", "")
