"""Claims about scores, and verdicts on them: what paired differences over seeds say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rosa.errors import ReportError
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.histories import points
from rosa.report.significance import LEVEL, POWER, Paired, adjusted, compare_with

SUPPORTED, CONTRADICTED, OPEN, NOT_RUN = "supported", "contradicted", "open", "not run"

Settings = dict[str, Any]
"""Settings that one row of a comparison has and no other; those that are not named may have any value."""
ROSA: Settings = {"method.name": "rosa", "method.every": 1}
NEVER: Settings = {"method.name": "rosa", "method.every": 0}
LORA: Settings = {"method.name": "lora"}
IA3: Settings = {"method.name": "ia3"}
FULL: Settings = {"method.name": "full"}
ROBUST: Settings = {"method.name": "robust", "method.schedule": "joint"}
SPARSE: Settings = {"method.name": "robust", "method.schedule": "sparse_only"}

DIFFERENCE = (
    f"the mean of paired differences over n seeds, in points, ± half the width of its {1 - LEVEL:.0%} interval "
    "(Student's t)"
)
"""What :func:`mean_and_reach` writes."""
DETECTABLE = (
    f"the smallest true difference that n such pairs would find (p < {LEVEL:g}, uncorrected) with a chance of "
    f"{POWER:.0%}"
)
AS_GOOD = (
    "That a row is as good as another, or at least as good, is supported only where it is better: where the interval "
    "holds 0 it stays open, and the interval says by how much the row may be worse."
)


@dataclass(frozen=True)
class Claim:
    """The claim that one row scores higher than another."""

    words: str
    """The papers' claim, shortened."""
    row: Settings
    against: Settings
    early: bool = False
    """Whether it is about the first epoch after which not all scores of the two rows are equal, as those of constant
    answers are (the last one where all are), and not about the selected one."""


@dataclass(frozen=True)
class Difference:
    """A row's scores less another row's."""

    name: str
    """Of the task or, where one task has several scores, of the score."""
    metric: str
    lower_is_better: bool
    paired: Paired

    @property
    def ahead(self) -> bool:
        """Whether the row is better on average."""
        return ((self.paired.difference or 0) > 0) != self.lower_is_better


def row_of(comparison: Comparison, wanted: Settings) -> Row | None:
    """The row with these settings; None without one.

    Raises:
        ReportError: several rows have them; names the rows.
    """
    found = [row for row in comparison.rows if all(row.settings.get(key) == value for key, value in wanted.items())]
    if len(found) > 1:
        listed = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise ReportError(
            f"{comparison.experiment}: {len(found)} rows have {listed}: {'; '.join(row.label for row in found)}; "
            "expected one, for a claim is about one: leave the records of the others out of results/records"
        )
    return found[0] if found else None


def rows_of(comparison: Comparison, claim: Claim) -> tuple[Row, Row] | None:
    """The two rows that a claim compares; None where one has no records."""
    own, other = row_of(comparison, claim.row), row_of(comparison, claim.against)
    return None if own is None or other is None else (own, other)


def difference_on(comparison: Comparison, claim: Claim, task: Task) -> Difference | None:
    """The difference in a task's headline; None where the two rows have no seed in common."""
    rows = rows_of(comparison, claim)
    if rows is None or not all(task.name in row.results for row in rows):
        return None
    own, other = _early(*rows, task) if claim.early else (_selected(row, task) for row in rows)
    paired = compare_with(rows[1].label, own, other)
    name = formatting.TASK_NAMES.get(task.name, task.name)
    return Difference(name, task.metric, task.lower_is_better, paired) if paired.n else None


def _selected(row: Row, task: Task) -> dict[int, float]:
    return row.results[task.name].selected.scores(task.splits[0], task.metric)


def _early(row: Row, against: Row, task: Task) -> tuple[dict[int, float], dict[int, float]]:
    own, other = ({point.epoch: point.values for point in points(one, task, task.metric)} for one in (row, against))
    shared = sorted(own.keys() & other.keys())
    for epoch in shared:
        seeds = own[epoch].keys() & other[epoch].keys()
        if len({values[epoch][seed] for values in (own, other) for seed in seeds}) > 1:
            return own[epoch], other[epoch]
    return (own[shared[-1]], other[shared[-1]]) if shared else ({}, {})


def significant(found: Sequence[Difference]) -> list[bool]:
    """Whether each difference is significant after Holm's correction over all of them."""
    return [p is not None and p < LEVEL for p in adjusted([one.paired for one in found])]


def verdict_of(found: Sequence[Difference], number: int) -> str:
    """Whether most of ``number`` tasks or scores differ significantly in one direction.

    Args:
        found: own scores minus the other's, for each task or score that both have.
        number: of tasks or scores in the study; those without a difference count as none.
    """
    if not found:
        return NOT_RUN
    ahead = [one.ahead for one, counts in zip(found, significant(found), strict=True) if counts]
    if 2 * sum(ahead) > number:
        return SUPPORTED
    return CONTRADICTED if 2 * (len(ahead) - sum(ahead)) > number else OPEN


def mean_and_reach(one: Difference, star: bool = False) -> str:
    """``-1.6* ± 0.9``, as ``DIFFERENCE`` says; without an interval the mean alone."""
    mean = formatting.signed_score(one.paired.difference or 0.0, one.metric) + ("*" if star else "")
    if one.paired.interval is None:
        return mean
    low, high = one.paired.interval
    return f"{mean} ± {formatting.score((high - low) / 2, one.metric)}"


def detectable(one: Difference) -> str:
    """The detectable difference; a dash where there is no interval."""
    found = one.paired.detectable
    return formatting.MISSING if found is None else formatting.score(found, one.metric)
