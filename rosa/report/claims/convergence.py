"""The numbers behind two of the reviewers' questions: when a row converges, and how its scores vary over seeds."""

from __future__ import annotations

import math
import statistics

from rosa.report.claims.verdicts import FULL, above_constant, row_of
from rosa.report.comparison import Comparison, Row, Summary, Task, seeds_of_all, summarise
from rosa.report.histories import points

SHARE = 0.95
"""A row has converged where it has this share of full fine-tuning's last score."""


def converged(comparison: Comparison, row: Row, task: Task) -> float | None:
    """The first epoch after which a row has nearly full fine-tuning's last score, over the seeds that all rows have.

    Infinity where it never has; None where either was not run, or not with these seeds.
    """
    full = row_of(comparison, FULL)
    if full is None or task.name not in row.results or task.name not in full.results:
        return None
    own, target = points(row, task, task.metric), points(full, task, task.metric)
    seeds = seeds_of_all(comparison.rows, task)
    evaluated = any(point.values.keys() >= set(seeds) for point in own)
    if not target or not seeds or not evaluated or not target[-1].values.keys() >= set(seeds):
        return None
    last = statistics.fmean(target[-1].values[seed] for seed in seeds)
    lost = (1 - SHARE) * above_constant(comparison, task, last, (task.splits[0], task.metric))
    for point in own:
        # Without a seed whose score is not finite there, the mean would be of other runs.
        if point.values.keys() >= set(seeds):
            mean = statistics.fmean(point.values[seed] for seed in seeds)
            if mean <= last + lost if task.lower_is_better else mean >= last - lost:
                return point.epoch
    return math.inf


def last_epoch(row: Row, task: Task) -> float:
    """The last epoch after which a row was scored."""
    return points(row, task, task.metric)[-1].epoch


def fluctuation(comparison: Comparison, row: Row, task: Task) -> Summary | None:
    """Mean and deviation of a row's scores over the seeds that all rows have; None with fewer than two of them."""
    seeds = seeds_of_all(comparison.rows, task)
    found = summarise(score for seed, score in row.scores(task).items() if seed in seeds)
    return found if found and found.deviation is not None else None
