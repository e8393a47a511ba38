"""Claims about scores, and verdicts on them: what paired differences over seeds say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rosa.errors import ReportError
from rosa.report import formatting
from rosa.report.apart import apart
from rosa.report.baselines import Place, constant
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.histories import points
from rosa.report.significance import LEVEL, POWER, Paired, adjusted, compare_with, deviation_interval
from rosa.report.tables.table import Line, text
from rosa.utils.formatting import DECIMALS

SUPPORTED, CONTRADICTED, OPEN, NOT_RUN = "supported", "contradicted", "open", "not run"

Settings = dict[str, Any]
"""Settings that one row of a comparison has and no other; those that are not named may have any value. ROSA and LoRA
are those of rank 8; a claim about another one says so."""
RANK = "method.rank"
ROSA: Settings = {"method.name": "rosa", "method.every": 1, RANK: 8}
NEVER: Settings = {"method.name": "rosa", "method.every": 0, RANK: 8}
LORA: Settings = {"method.name": "lora", RANK: 8}
IA3: Settings = {"method.name": "ia3"}
FULL: Settings = {"method.name": "full"}
ROBUST: Settings = {"method.name": "robust", "method.schedule": "joint"}
SPARSE: Settings = {"method.name": "robust", "method.schedule": "sparse_only"}

MARGIN = 0.1
"""A row is as good as another where it is behind by less than this share of what the other has above a constant
answer."""
CORRELATIONS = ("matthews_correlation", "pearson", "spearmanr")
"""Metrics from -1 to 1; all others are from 0 to 1 but for those that have no end on one side."""
UNBOUNDED = (*DECIMALS, "r2")
NONE = "none"
"""In place of a detectable difference that is larger than any two scores can have."""
HOLM = "†"
"""Mark of a difference that is significant after correction. The tables of scores have a star for one that is so
before."""

DIFFERENCE = (
    f"the mean of paired differences over n seeds, in points, ± half the width of its {1 - LEVEL:.0%} interval "
    "(Student's t)"
)
"""What :func:`mean_and_reach` writes."""
UNCORRECTED = "Intervals are not corrected, so a line can be open although its interval leaves out 0."


@dataclass(frozen=True)
class Claim:
    """The claim that one row scores higher than another, or as high."""

    words: str
    """The papers' claim, shortened."""
    row: Settings
    against: Settings
    early: bool = False
    """Whether it is about the first epoch after which not all scores of the two rows are equal, as those of constant
    answers are (the last one where all are), and not about the selected one."""
    as_good: bool = False
    """Whether the row may be behind by less than the margin, see ``MARGIN``."""


@dataclass(frozen=True)
class Difference:
    """A row's scores less another row's."""

    name: str
    """Of the task or, where one task has several scores, of the score."""
    metric: str
    lower_is_better: bool
    paired: Paired
    apart: Sequence[str] = ()
    """What else differs between the paired runs, see :mod:`rosa.report.apart`."""
    p: float | None = None
    """The p-value after :func:`corrected`; None where there is no test."""
    tests: int | None = None
    """The number of tests it was corrected for; None before."""

    @property
    def largest(self) -> float:
        """The largest difference that two scores can have, by the metric's scale."""
        return 2 if self.metric in CORRELATIONS else math.inf if self.metric in UNBOUNDED else 1

    @property
    def counts(self) -> bool:
        """Whether it is significant after the correction."""
        return self.p is not None and self.p < LEVEL

    @property
    def ahead(self) -> bool:
        """Whether the row is better on average, or less behind than its margin."""
        shifted = (self.paired.difference or 0) + self.paired.margin
        return shifted < 0 if self.lower_is_better else shifted > 0


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
    own, other = _early(*rows, task) if claim.early else (row.scores(task) for row in rows)
    margin = margin_to(comparison, task, own, other, (task.splits[0], task.metric)) if claim.as_good else 0.0
    paired = compare_with(rows[1].label, own, other, margin)
    name = formatting.task_name(task.name)
    found = Difference(name, task.metric, task.lower_is_better, paired, apart(*rows, task))
    return found if paired.n else None


def _early(row: Row, against: Row, task: Task) -> tuple[dict[int, float], dict[int, float]]:
    own, other = (_by_epoch(one, task) for one in (row, against))
    epoch = early_epoch(row, against, task)
    return ({}, {}) if epoch is None else (own[epoch], other[epoch])


def early_epoch(row: Row, against: Row, task: Task) -> float | None:
    """The epoch that an early claim about two rows is about; None where they share no epoch."""
    own, other = (_by_epoch(one, task) for one in (row, against))
    shared = sorted(own.keys() & other.keys())
    for epoch in shared:
        seeds = own[epoch].keys() & other[epoch].keys()
        if len({values[epoch][seed] for values in (own, other) for seed in seeds}) > 1:
            return epoch
    return shared[-1] if shared else None


def _by_epoch(row: Row, task: Task) -> dict[float, dict[int, float]]:
    return {point.epoch: point.values for point in points(row, task, task.metric)}


def margin_to(
    comparison: Comparison, task: Task, own: Mapping[int, float], other: Mapping[int, float], place: Place
) -> float:
    """By how much a row may be behind another and still be as good; below 0 for an error, of which less is better.

    ``MARGIN`` of what the other row's mean, over the seeds that both have, is :func:`above_constant`.
    """
    found = summarise(other[seed] for seed in own.keys() & other.keys())
    sign = -1 if task.is_error(place[1]) else 1
    return sign * MARGIN * above_constant(comparison, task, found.mean, place) if found else 0.0


def above_constant(comparison: Comparison, task: Task, mean: float, place: Place) -> float:
    """By how much a mean is better than a constant answer: its score, or its error; at least 0.

    Where a constant answer has none, a score is taken from 0, and of an error the whole.
    """
    start = constant(comparison, task, place)
    if task.is_error(place[1]):
        return max(0.0, mean if start is None else start - mean)
    return max(0.0, mean - (start or 0.0))


def corrected(lines: Sequence[Sequence[Difference | None]]) -> list[list[Difference | None]]:
    """The differences of a table's lines, after Holm's correction over all of them."""
    known = [one for line in lines for one in line if one is not None]
    tests = sum(one.paired.p is not None for one in known)
    found = iter(
        [replace(one, p=p, tests=tests) for one, p in zip(known, adjusted([one.paired for one in known]), strict=True)]
    )
    return [[None if one is None else next(found) for one in line] for line in lines]


def verdict_of(found: Sequence[Difference | None], what: str = "tasks") -> str:
    """Whether most of a claim's tasks differ significantly in one direction, after :func:`corrected`.

    Args:
        found: own scores minus the other's on each task; None where one has no runs, which counts as no difference.
        what: the tasks, or what else the differences are on.
    """
    known = [one for one in found if one is not None]
    if not known:
        return NOT_RUN
    ahead = [one.ahead for one in known if one.counts]
    if 2 * sum(ahead) > len(found):
        return SUPPORTED
    if 2 * (len(ahead) - sum(ahead)) > len(found):
        return CONTRADICTED
    return OPEN if len(known) == len(found) else f"{OPEN} ({len(known)} of {len(found)} {what} run)"


def mean_and_reach(one: Difference, mark: str = "") -> str:
    """``-1.6† ± 0.9``, as ``DIFFERENCE`` says, with a mark or none; without an interval the mean alone."""
    mean = formatting.signed_score(one.paired.difference or 0.0, one.metric) + mark
    if one.paired.interval is None:
        return mean
    low, high = one.paired.interval
    return f"{mean} ± {formatting.score((high - low) / 2, one.metric)}"


def detectable(one: Difference) -> str:
    """The detectable difference at the corrected level; a dash without an interval, ``NONE`` beyond the scale."""
    found = one.paired.detectable(one.tests or 1)
    if found is None:
        return formatting.MISSING
    # Counted from the margin, a difference can be as large as the scale and the margin together.
    return NONE if found > one.largest + abs(one.paired.margin) else formatting.score(found, one.metric)


def on_detectable(found: Sequence[Difference]) -> str:
    """What :func:`detectable` writes of a table's differences, and how much it can be relied on."""
    tests = max((one.tests or 1 for one in found), default=1)
    fewest = min((one.paired.n for one in found if one.paired.interval), default=2)
    low, high = deviation_interval(fewest)
    beyond = f"; {NONE}: not even the largest difference that two scores can have would be found with that chance"
    level = f"{LEVEL:g}/{tests}, what the correction asks of the smallest p" if tests > 1 else f"{LEVEL:g}"
    return (
        f"the smallest true difference that n such pairs would find with a chance of {POWER:.0%} at p < {level}, if "
        f"the deviation of these pairs is the true one (which with n={fewest} may be {low:.2f} to {high:.1f} times as "
        "large)" + (beyond if any(detectable(one) == NONE for one in found) else "")
    )


def on_margins(found: Sequence[Difference]) -> list[Line]:
    """What "as good as" means in a table, with its margins; nothing where no line has one."""
    margins: dict[str, dict[float, str]] = {}
    for one in found:
        if one.paired.margin:
            margin = abs(one.paired.margin)
            margins.setdefault(one.name, {})[margin] = formatting.score(margin, one.metric)
    if not margins:
        return []
    ends = {name: dict.fromkeys((own[min(own)], own[max(own)])) for name, own in margins.items()}
    each = ", ".join(f"{' to '.join(written)} ({name})" for name, written in ends.items())
    errors = any(one.paired.margin and one.lower_is_better for one in found)
    return [
        text(
            f'"As good as": not behind by more than a margin, {MARGIN:.0%} of what the other row\'s mean has '
            f"{over_constant(errors)}: {each}. It is {SUPPORTED} where the row is significantly less behind than the "
            f"margin (or ahead), {CONTRADICTED} where it is significantly further behind; what can be detected is "
            "counted from the margin. The margin was chosen after the first runs had been seen."
        )
    ]


def over_constant(errors: bool) -> str:
    """What :func:`above_constant` is, in words, for scores alone or with ``errors`` among them."""
    told = "above a constant answer (above 0 where that has no score)"
    return f"{told}, or for an error below one (of the whole error where that has none)" if errors else told
