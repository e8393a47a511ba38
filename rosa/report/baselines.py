"""The baselines of a comparison: their rows below the methods, and which scores do not exceed them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rosa.records import Record
from rosa.records.baselines import Found, hash_of, key_of_run
from rosa.report.comparison import Comparison, Task, Trial, summarise

CONSTANT, WORDS, RETRIEVAL = "Constant answer", "Bag of words", "Retrieval"
"""Labels of the rows."""
KINDS: Mapping[str, str] = {"constant": CONSTANT, "retrieval": RETRIEVAL}
"""Form of baseline -> label of its row; every other form belongs to the bag of words."""


Place = tuple[str, str]
"""Split and metric."""


@dataclass(frozen=True)
class Line:
    """One row's entry for one task."""

    label: str
    form: str
    """The form that is shown: of several, the one with the best mean score on the task's first split."""
    scores: Mapping[Place, tuple[float, ...]]
    """One score for each set of rows that the runs used."""

    def mean(self, split: str, metric: str) -> float | None:
        """The mean over sets of rows; None if undefined."""
        summary = summarise(self.scores.get((split, metric), ()))
        return summary.mean if summary else None


def lines(comparison: Comparison, task: Task) -> dict[str, Line]:
    """The baselines of a task, by row label; only if the rows of every run that is shown have a record."""
    return _best(forms(comparison, task), task)


def forms(comparison: Comparison, task: Task) -> list[Line]:
    """Every form of baseline of a task, not only the best one of each row."""
    own = [run for run in comparison.shown if run["identity"]["task"] == task.name]
    return _each_form(own, comparison.baselines)


def labels(comparison: Comparison) -> list[str]:
    """Labels of the rows of baselines that have an entry, in their order."""
    found = {label for task in comparison.tasks for label in lines(comparison, task)}
    return [one for one in (CONSTANT, WORDS, RETRIEVAL) if one in found]


def constant(comparison: Comparison, task: Task, place: Place) -> float | None:
    """The mean score of a constant answer; None where it has none (a correlation), or where it was not computed."""
    line = lines(comparison, task).get(CONSTANT)
    return line.mean(*place) if line else None


def not_above(comparison: Comparison, trial: Trial, task: Task, values: Iterable[float], place: Place) -> bool:
    """Whether the mean of a cell's scores does not exceed every baseline on the rows of its own runs.

    Args:
        comparison: has the records of baselines.
        trial: of the cell.
        task: of the cell.
        values: the cell's scores, one per seed.
        place: their split and metric.
    """
    summary = summarise(values)
    if summary is None:
        return False
    lower = task.is_error(place[1])
    found = _each_form(trial.scored.values(), comparison.baselines)
    others = [mean for line in found if (mean := line.mean(*place)) is not None]
    return any(summary.mean >= other if lower else summary.mean <= other for other in others)


def _best(found: Iterable[Line], task: Task) -> dict[str, Line]:
    best: dict[str, Line] = {}
    for line in found:
        kept = best.get(line.label)
        if kept is None or _order(line, task) > _order(kept, task):
            best[line.label] = line
    return best


def _order(line: Line, task: Task) -> float:
    mean = line.mean(task.splits[0], task.metric)
    return -math.inf if mean is None else -mean if task.lower_is_better else mean


def _each_form(runs: Collection[Record], found: Found) -> list[Line]:
    if not found:
        return []
    by_seed: dict[int, set[str]] = {}
    for run in runs:
        key = key_of_run(run)
        by_seed.setdefault(run["identity"]["seed"], set()).update([] if key is None else [hash_of(key)])
    hashes = sorted({one for own in by_seed.values() for one in own})
    if any(one not in found for one in hashes) or any(len(own) > 1 for own in by_seed.values()):
        return []  # a mean over other rows than the methods' could not be compared with theirs
    scores: dict[str, dict[Place, list[float]]] = {}
    for record in (found[one] for one in hashes):
        for form in record["forms"]:
            own = scores.setdefault(form["name"], {})
            for split, values in form["scores"].items():
                for metric, value in values.items():
                    own.setdefault((split, metric), []).extend([] if value is None else [value])
    return [
        Line(KINDS.get(name, WORDS), name, {place: tuple(values) for place, values in own.items()})
        for name, own in scores.items()
    ]
