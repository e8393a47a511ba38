"""A metric by epoch, read from the records of a row's runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rosa.records import Record, by_split
from rosa.report.comparison import Row, Task, summarise


@dataclass(frozen=True)
class Point:
    """The metric of one row on one task after one epoch."""

    epoch: float
    values: dict[int, float]
    """Seed -> value; without seeds whose value is not finite."""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        summary = summarise(self.values.values())
        return summary.mean if summary else math.nan


def points(row: Row, task: Task, metric: str) -> list[Point]:
    """Values of the finished seeds at each epoch at which any of them was evaluated."""
    if task.name not in row.results:
        return []
    by_epoch: dict[float, dict[int, float]] = {}
    for seed, run in row.results[task.name].selected.scored.items():
        for epoch, number in history(run, task.splits[0], metric):
            by_epoch.setdefault(epoch, {})[seed] = number
    return [Point(epoch, dict(sorted(values.items()))) for epoch, values in sorted(by_epoch.items())]


def history(run: Record, split: str, metric: str) -> Iterator[tuple[float, float]]:
    """(epoch, value) of every evaluation of a run at which the metric is finite."""
    for entry in run["history"]:
        number = by_split(entry).get(split, {}).get(metric)
        if number is not None and math.isfinite(number):
            yield float(entry["epoch"]), float(number)
