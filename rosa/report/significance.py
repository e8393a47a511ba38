"""A paired t-test over seeds against LoRA: a seed gives every method the same batches and the same initial head.

Wilcoxon's signed-rank test, which assumes less, cannot come below 0.05 with fewer than six pairs, so it would never
speak of three or five seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr

from rosa.report.comparison import Row, frozen

LEVEL = 0.05
"""A difference with a smaller p-value is marked."""
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

    @property
    def marked(self) -> bool:
        """Whether the table marks the difference."""
        return self.p is not None and self.p < LEVEL


def paired_t(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of Student's t-test that the mean of ``differences`` is 0.

    None with fewer than two of them, or where they do not vary: the test then says nothing.
    """
    n = len(differences)
    deviation = statistics.stdev(differences) if n > 1 else 0.0
    if deviation <= ROUNDING * max(map(abs, differences), default=0.0):
        return None
    t = statistics.fmean(differences) / (deviation / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def compare_with(against: str, own: Mapping[int, float], other: Mapping[int, float]) -> Paired:
    """Own scores beside another row's, seed -> score of each."""
    differences = [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
    mean = statistics.fmean(differences) if differences else None
    return Paired(against, len(differences), mean, paired_t(differences))


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
