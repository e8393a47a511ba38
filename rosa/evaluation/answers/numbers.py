"""Exact match of the final number (GSM8K, Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.errors import ScoringError
from rosa.utils.answers import MARK, final_number


def score(
    _given: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float | None], dict[str, str], dict[str, str]]:
    """The share of answers whose final number is a reference's.

    Raises:
        ScoringError: a reference has no final number; names the segment, counted from 0.
    """
    right = 0
    for i, (answer, known) in enumerate(zip(answers, references, strict=True)):
        wanted = {final_number(reference) for reference in known}
        if None in wanted:
            raise ScoringError(f"references[{i}] has no number behind {MARK}: {known[0][-60:]!r}")
        right += final_number(answer) in wanted
    definition = f"the number behind {MARK}; commas, currency signs, units and zeros behind the point do not count"
    return {"exact_match": right / len(answers)}, {"exact_match": definition}, {}
