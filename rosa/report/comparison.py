"""The records of an experiment as tables and figures have them: rows of trials on tasks.

A row is one model and one method with its settings, a column one task, a cell the seeds of one learning rate.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rosa import records
from rosa.records import Record, Rule, by_split
from rosa.records.baselines import Found


@dataclass(frozen=True)
class Trial:
    """The runs of all seeds for one row, task and learning rate."""

    lr: float
    runs: tuple[Record, ...]
    """Sorted by seed."""
    rule: Rule

    @cached_property
    def scored(self) -> dict[int, Record]:
        """Seed -> run, for the runs that finished with a score."""
        return {run["identity"]["seed"]: run for run in self.runs if finished(run, self.rule)}

    @cached_property
    def failed(self) -> list[int]:
        """Seeds that failed, or diverged to a score that is not finite."""
        lost = (r for r in self.runs if r["status"] != "running" and not finished(r, self.rule))
        return sorted({run["identity"]["seed"] for run in lost} - set(self.scored))

    @cached_property
    def running(self) -> list[int]:
        """Seeds that are running, or were stopped and not resumed."""
        going = {run["identity"]["seed"] for run in self.runs if run["status"] == "running"}
        return sorted(going - set(self.scored) - set(self.failed))

    def scores(self, split: str, metric: str) -> dict[int, float]:
        """Seed -> score, for the seeds that have it."""
        if (split, metric) not in self._scores:
            shown = {seed: by_split(run["metrics"][self.rule]) for seed, run in self.scored.items()}
            values = {seed: scores.get(split, {}).get(metric) for seed, scores in shown.items()}
            self._scores[split, metric] = {s: float(value) for s, value in sorted(values.items()) if value is not None}
        return dict(self._scores[split, metric])

    @cached_property
    def _scores(self) -> dict[tuple[str, str], dict[int, float]]:
        """Split and metric -> what :meth:`scores` has found."""
        return {}


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for one seed."""
    n: int


@dataclass(frozen=True)
class Result:
    """The trials of one row on one task."""

    trials: tuple[Trial, ...]
    """By learning rate, ascending."""
    selected: Trial
    """The trial of the learning rate that the table shows."""

    @property
    def runs(self) -> list[Record]:
        """The runs of all trials."""
        return [run for trial in self.trials for run in trial.runs]


@dataclass(frozen=True)
class Row:
    """One model and method with one set of settings."""

    label: str
    """The method, its rank and resampling, and what else differs from the method's defaults."""
    model: str
    method: str
    settings: Mapping[str, Any]
    """The settings that define the row, by dotted key."""
    results: Mapping[str, Result]
    """Task -> result; without tasks that have no run."""

    def scores(self, task: Task) -> dict[int, float]:
        """Seed -> headline score on the task's first split, at the selected learning rate; empty without a run."""
        found = self.results.get(task.name)
        return found.selected.scores(task.splits[0], task.metric) if found else {}

    @cached_property
    def trained(self) -> int | None:
        """Parameters that the method trains, without the head; None if no run has counted them."""
        counts = (run["params"].get("trainable") for result in self.results.values() for run in result.runs)
        return next((count for count in counts if count is not None), None)


@dataclass(frozen=True)
class Task:
    """One task: a column of the table."""

    name: str
    metric: str
    """The headline metric."""
    splits: tuple[str, ...]
    """Evaluation splits of the data; epochs and learning rates are selected on the first."""
    seeds: tuple[int, ...]
    """The seeds that at least half of its rows have run, and at least two, so that a further seed of one row does not
    make the others incomplete; every seed of any row, where that leaves fewer than two of several. A row's scores are
    of all its own seeds."""
    kind: str = "classification"
    lower_is_better: bool = False
    """Whether a lower headline score is better."""

    def is_error(self, metric: str) -> bool:
        """Whether less of a metric is better: of the headline, where it is an error, and of no other."""
        return self.lower_is_better and metric == self.metric


@dataclass(frozen=True)
class Words:
    """Options of the command that shows the records, which the commands printed in tables repeat."""

    records: tuple[str, ...] = ()
    """Which records there are: of every command that reads records from files."""
    table: tuple[str, ...] = ()
    """Further options of ``scripts/make_tables.py``."""


@dataclass(frozen=True)
class Comparison:
    """The records of one experiment, grouped."""

    experiment: str
    rule: Rule
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]
    unequal: tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...]
    """Settings that differ between the rows of a task and are in no label: key, then value -> labels."""
    baselines: Found = field(default_factory=dict)
    """Records of baselines, of these runs' data and maybe of others."""
    words: Words = Words()

    @property
    def selections(self) -> tuple[str, ...]:
        """How the shown epochs and learning rates were selected: ``dev-best``, ``dev-last``, ``holdout``."""
        return tuple(sorted({_selection(run, self.rule) for run in self.runs}))

    @property
    def epoch(self) -> str:
        """``best epoch (selection: dev-best)``, for a caption."""
        return f"{self.rule} epoch (selection: {' and '.join(self.selections)})"

    @property
    def runs(self) -> list[Record]:
        """All runs of the table, including those of learning rates that were not selected."""
        results = [result for row in self.rows for result in row.results.values()]
        return [run for result in results for run in result.runs]

    def runs_of(self, task: str) -> list[Record]:
        """Every run of one task."""
        return [run for run in self.runs if run["identity"]["task"] == task]

    @property
    def shown(self) -> list[Record]:
        """The runs whose scores are in the table's cells."""
        results = [result for row in self.rows for result in row.results.values()]
        return [run for result in results for run in result.selected.scored.values()]


def summarise(values: Iterable[float]) -> Summary | None:
    """Mean and sample standard deviation; None without values."""
    found = list(values)
    if not found:
        return None
    return Summary(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def complete(result: Result, task: Task) -> bool:
    """Whether every seed of the task has its scores at the selected learning rate, and none of them failed."""
    trial, seeds = result.selected, set(task.seeds)
    whole = all(trial.scores(split, task.metric).keys() >= seeds for split in task.splits)
    return whole and not seeds & set(trial.failed)


def seeds_of_all(rows: Iterable[Row], task: Task) -> list[int]:
    """The seeds of which every row that was run on a task has a score, so that the rows compare.

    A row with one seed leaves the others theirs, as a mean over one seed would say little of any row.
    """
    found = [set(row.results[task.name].selected.scored) for row in rows if task.name in row.results]
    several = [seeds for seeds in found if len(seeds) > 1] or found
    return sorted(set.intersection(*several)) if several else []


def finished(run: Record, rule: Rule) -> bool:
    """Whether a run is done, with a score that is finite."""
    return run["status"] == "done" and math.isfinite(records.score(run, rule))


def _selection(run: Record, rule: Rule) -> str:
    return records.HOLDOUT if records.selection_rule(run) == records.HOLDOUT else f"dev-{rule}"
