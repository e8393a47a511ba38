"""Scoring texts that are right or wrong: the final number of a solution, a meaning representation, an SQL query."""

from __future__ import annotations

from rosa.evaluation.answers.scores import SCORERS, AnswerScores, score

__all__ = ["SCORERS", "AnswerScores", "score"]
