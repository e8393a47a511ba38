"""A paired t-test over seeds against LoRA: a seed gives every method the same batches and the same initial head.

Wilcoxon's signed-rank test, which assumes less, cannot come below 0.05 with fewer than six pairs, so it would never
speak of three or five seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import nctdtrinc, stdtr, stdtrit

from rosa.report.comparison import Row, frozen

LEVEL = 0.05
"""A difference with a smaller p-value is marked; an interval leaves this share outside."""
POWER = 0.8
"""Chance with which a difference is found that is called detectable."""
ROUNDING = 1e-12
"""Differences that vary by no more than this share of themselves are equal but for rounding."""


@dataclass(frozen=True)
class Paired:
    """The difference of a row from LoRA, over the seeds that both have."""

    against: str
    """Label of the LoRA row."""
    n: int
    """Pairs."""
    difference: float | None
    """Mean of own minus LoRA's; None without a pair."""
    p: float | None
    """Two-sided; None with fewer than two pairs, or where the differences do not vary."""
    interval: tuple[float, float] | None = None
    """The mean difference's interval of confidence 1 - ``LEVEL`` by Student's t; None where ``p`` is."""
    detectable: float | None = None
    """The smallest true difference that so many pairs, varying as these do, find with a chance of ``POWER``."""

    @property
    def marked(self) -> bool:
        """Whether the table marks the difference."""
        return self.p is not None and self.p < LEVEL


def paired_t(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of Student's t-test that the mean of ``differences`` is 0.

    None with fewer than two of them, or where they do not vary: the test then says nothing.
    """
    error = _standard_error(differences)
    if error is None:
        return None
    return float(2 * stdtr(len(differences) - 1, -abs(statistics.fmean(differences) / error)))


def t_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Student's interval of confidence 1 - ``LEVEL`` for the mean of ``differences``; None as for :func:`paired_t`."""
    error = _standard_error(differences)
    if error is None:
        return None
    mean, reach = statistics.fmean(differences), _critical(len(differences)) * error
    return mean - reach, mean + reach


def detectable_difference(differences: Sequence[float]) -> float | None:
    """The true mean that :func:`paired_t` would find at ``LEVEL`` with a chance of ``POWER``; None as there.

    It takes the deviation of ``differences`` for the true one. The chance to find the wrong sign is left out; at this
    power it is far below a thousandth.
    """
    error = _standard_error(differences)
    if error is None:
        return None
    n = len(differences)
    return float(nctdtrinc(n - 1, 1 - POWER, _critical(n)) * error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, by Holm's step-down method: a level bounds the chance of any false finding.

    Source: Holm, *A simple sequentially rejective multiple test procedure*, 1979.

    Returns:
        In the order given: the k-th smallest of m times m - k + 1, at least the one before, and at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _critical(n: int) -> float:
    return float(stdtrit(n - 1, 1 - LEVEL / 2))


def _standard_error(differences: Sequence[float]) -> float | None:
    """Of the mean; None with fewer than two differences, or where they do not vary."""
    n = len(differences)
    deviation = statistics.stdev(differences) if n > 1 else 0.0
    if deviation <= ROUNDING * max(map(abs, differences), default=0.0):
        return None
    return deviation / math.sqrt(n)


def compare_with(against: str, own: Mapping[int, float], other: Mapping[int, float]) -> Paired:
    """Own scores beside another row's, seed -> score of each."""
    differences = [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
    mean = statistics.fmean(differences) if differences else None
    return Paired(
        against,
        len(differences),
        mean,
        paired_t(differences),
        t_interval(differences),
        detectable_difference(differences),
    )


def lora_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The LoRA row that a row is compared with: of the same model, and of the same rank where there are several.

    None for a LoRA row itself, and where no LoRA row, or more than one, would do.
    """
    if row.method == "lora":
        return None
    shared = {key: value for key, value in row.settings.items() if not key.startswith("method.")}
    found = [
        other
        for other in rows
        if (other.model, other.method) == (row.model, "lora")
        and all(frozen(other.settings.get(key)) == frozen(value) for key, value in shared.items())
    ]
    if len(found) > 1:
        found = [other for other in found if other.settings.get("method.rank") == row.settings.get("method.rank")]
    return found[0] if len(found) == 1 else None
