"""Paired t-tests over seeds, mostly against LoRA: a seed gives every method the same batches and the same initial head.

Wilcoxon's signed-rank test assumes less, but its two-sided p-value cannot be below 0.05 with fewer than six pairs, so
it could never find a difference with three or five seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from scipy.special import chdtri, nctdtrinc, stdtr, stdtrit

from rosa.report.comparison import Row
from rosa.report.grouping import frozen

LEVEL = 0.05
"""Significance level of tests; confidence intervals are at 1 - ``LEVEL``."""
POWER = 0.8
"""Power of the test at the detectable difference."""
ROUNDING = 1e-12
"""Relative spread up to which differences count as equal up to rounding."""


@dataclass(frozen=True)
class Paired:
    """The differences of a row from another one, such as LoRA, over the seeds that both have."""

    against: str
    """Label of the other row."""
    differences: tuple[float, ...]
    """Own score less the other's, of each seed."""
    margin: float = 0.0
    """The test is whether the true difference is -``margin``: above 0 to ask whether a row is as good as the other, up
    to so much (below 0 for an error, of which less is better)."""

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @property
    def difference(self) -> float | None:
        """The mean of the differences; None without a pair."""
        return statistics.fmean(self.differences) if self.differences else None

    @cached_property
    def p(self) -> float | None:
        """Two-sided p-value; None with fewer than two pairs or with differences that do not vary."""
        return paired_t([one + self.margin for one in self.differences])

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Student's t confidence interval of the mean difference at 1 - ``LEVEL``; None where ``p`` is."""
        return t_interval(self.differences)

    def detectable(self, tests: int = 1) -> float | None:
        """What :func:`detectable_difference` says of these pairs, as a distance from -``margin``."""
        return detectable_difference(self.differences, tests)

    @property
    def marked(self) -> bool:
        """Whether the table of scores, which corrects nothing, marks the difference as significant."""
        return self.p is not None and self.p < LEVEL


def paired_t(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of Student's t-test that the mean of ``differences`` is 0.

    None with fewer than two differences or with differences that do not vary, for which the test is undefined.
    """
    error = _standard_error(differences)
    if error is None:
        return None
    return float(2 * stdtr(len(differences) - 1, -abs(statistics.fmean(differences) / error)))


def t_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Student's t confidence interval at 1 - ``LEVEL`` of the mean difference; None as for :func:`paired_t`."""
    error = _standard_error(differences)
    if error is None:
        return None
    mean, reach = statistics.fmean(differences), _critical(len(differences), LEVEL) * error
    return mean - reach, mean + reach


def detectable_difference(differences: Sequence[float], tests: int = 1) -> float | None:
    """The true mean that :func:`paired_t` finds with a power of ``POWER``; None as there.

    The sample deviation of ``differences`` is taken for the true one. The probability of a significant result of the
    wrong sign is neglected; at this power it is far below 0.001.

    Args:
        differences: of the pairs.
        tests: the number of tests that are corrected together: the level is ``LEVEL`` over it, which Holm's method
            asks of the smallest p-value.
    """
    error = _standard_error(differences)
    if error is None:
        return None
    n = len(differences)
    return float(nctdtrinc(n - 1, 1 - POWER, _critical(n, LEVEL / tests)) * error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests by Holm's step-down method, which controls the family-wise error rate.

    Source: Holm, *A simple sequentially rejective multiple test procedure*, 1979.

    Returns:
        In the order given: the k-th smallest of m p-values times m - k + 1, made non-decreasing in k, at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def adjusted(found: Sequence[Paired]) -> list[float | None]:
    """The p-values of several comparisons after :func:`holm`, in the order given; None where there is no test."""
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    return [None if one.p is None else next(corrected) for one in found]


def deviation_interval(n: int) -> tuple[float, float]:
    """The confidence interval at 1 - ``LEVEL`` of a normal standard deviation, over the sample deviation of ``n >= 2``.

    From the chi-squared distribution of the sample variance.
    """
    freedom = n - 1
    low, high = (math.sqrt(freedom / chdtri(freedom, tail)) for tail in (LEVEL / 2, 1 - LEVEL / 2))
    return low, high


def _critical(n: int, level: float) -> float:
    return float(stdtrit(n - 1, 1 - level / 2))


def _standard_error(differences: Sequence[float]) -> float | None:
    """Standard error of the mean; None with fewer than two differences or with differences that do not vary."""
    n = len(differences)
    deviation = statistics.stdev(differences) if n > 1 else 0.0
    if deviation <= ROUNDING * max(map(abs, differences), default=0.0):
        return None
    return deviation / math.sqrt(n)


def compare_with(against: str, own: Mapping[int, float], other: Mapping[int, float], margin: float = 0.0) -> Paired:
    """Compare a row's scores (seed -> score) with another row's, over the seeds that both have."""
    return Paired(against, tuple(own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())), margin)


def lora_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The LoRA row to compare a row with: of the same model; if there are several, of the same rank.

    A row without a rank, or of a rank that no LoRA row has, has the one whose number of trained parameters is nearest,
    by their ratio; of two equally near, the one of the lower rank. None for a LoRA row itself, and if no LoRA row or
    more than one qualifies.
    """
    found = _lora_rows(row, rows)
    if len(found) > 1:
        found = _of_rank(row, found) or _nearest(row, found)
    return found[0] if len(found) == 1 else None


def by_size(rows: Sequence[Row]) -> str:
    """Where there are several LoRA rows: which one each row without a LoRA of its rank has, and which rows have none.

    Empty without such rows, otherwise sentences that follow others.
    """
    named: dict[str, list[str]] = {}
    alone = []
    for row in rows:
        found, lora = _lora_rows(row, rows), lora_of(row, rows)
        if len(found) > 1 and lora is None:
            alone.append(row.label)
        elif len(found) > 1 and lora is not None and not _of_rank(row, found):
            named.setdefault(lora.label, []).append(row.label)
    listed = "; ".join(f"{' / '.join(labels)} with {lora}" for lora, labels in named.items())
    sentences = {
        f" A row without a LoRA of its rank is compared with the one nearest in trained parameters: {listed}.": named,
        f" Not compared, since several LoRA rows qualify: {' / '.join(alone)}.": alone,
    }
    return "".join(sentence for sentence, rows_named in sentences.items() if rows_named)


def _lora_rows(row: Row, rows: Sequence[Row]) -> list[Row]:
    if row.method == "lora":
        return []
    shared = {key: value for key, value in row.settings.items() if not key.startswith("method.")}
    return [
        other
        for other in rows
        if (other.model, other.method) == (row.model, "lora")
        and all(frozen(other.settings.get(key)) == frozen(value) for key, value in shared.items())
    ]


def _of_rank(row: Row, found: Sequence[Row]) -> list[Row]:
    """The rows of a row's rank; none where it has no low-rank part."""
    if row.settings.get("method.schedule") == "sparse_only":
        return []
    return [other for other in found if other.settings.get("method.rank") == row.settings.get("method.rank")]


def _nearest(row: Row, found: Sequence[Row]) -> list[Row]:
    """The rows nearest in trained parameters, of the lowest rank; none where these were not counted."""
    own = row.trained
    if not own or not all(other.trained for other in found):
        return []

    def place(other: Row) -> tuple[Fraction, int]:
        size = other.trained or own
        return Fraction(max(own, size), min(own, size)), other.settings["method.rank"]

    nearest = min(map(place, found))
    return [other for other in found if place(other) == nearest]
