"""The scorers of answers by name, and the scores that all of them give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rosa.errors import ScoringError
from rosa.evaluation.answers import numbers, slots, sql

Measured = tuple[dict[str, float | None], dict[str, str], dict[str, str]]
"""Scores by name, each score's definition, and the reasons of missing scores."""

SCORERS: dict[str, Callable[[Sequence[str], Sequence[str], Sequence[Sequence[str]]], Measured]] = {
    "number": numbers.score,
    "slots": slots.score,
    "sql": sql.score,
}
"""By ``task.scorer``: called with the given texts, the answers and the references of each."""


@dataclass(frozen=True)
class AnswerScores:
    """Scores from 0 to 1, and how they were computed."""

    scores: dict[str, float | None]
    segments: int
    references: int
    """Number over all segments."""
    options: dict[str, str]
    """Score -> its definition."""
    missing: dict[str, str] = field(default_factory=dict)
    """Score without a value -> reason."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, as the record of a run holds them."""
        return {
            "scores": dict(self.scores),
            "segments": self.segments,
            "references": self.references,
            "scorer": {"tokenizer": "none", "versions": {}, "options": dict(self.options), "missing": self.missing},
        }


def score(
    scorer: str, given: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> AnswerScores:
    """Score answers; one is right if it agrees with any of its references.

    Args:
        scorer: a key of ``SCORERS``.
        given: the text that each answer answers.
        answers: one a segment; may be empty.
        references: one or more a segment.

    Raises:
        ScoringError: no answers, or unequal numbers.
    """
    if not answers or not len(given) == len(answers) == len(references):
        raise ScoringError(
            f"{len(given)} given texts, {len(answers)} answers, references of {len(references)}: expected as many of "
            "each, and at least one"
        )
    values, options, missing = SCORERS[scorer](given, answers, references)
    return AnswerScores(values, len(answers), sum(map(len, references)), options, missing)
