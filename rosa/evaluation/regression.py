"""Metrics of vector regression.

``mse`` is the mean squared error over all examples and components. ``r2``, the coefficient of determination, is the
share of the labels' variance, over all components, that the predictions explain: at most 1, below 0 if the mean label
predicts better, NaN if the labels are constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rosa.errors import ScoringError
from rosa.evaluation import scorer
from rosa.evaluation.classification import CONSTANT, require_finite

if TYPE_CHECKING:
    from transformers import EvalPrediction


def mean_squared_error(predictions: np.ndarray, references: np.ndarray) -> float:
    """Mean squared error of two arrays (n, components)."""
    return float(np.mean((predictions - references) ** 2))


def r2(predictions: np.ndarray, references: np.ndarray) -> float:
    """Coefficient of determination of two arrays (n, components); each component's variance is about its own mean."""
    variance = float(np.mean((references - references.mean(axis=0)) ** 2))
    return 1 - mean_squared_error(predictions, references) / variance if variance > 0 else float("nan")


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"r2": r2, "mse": mean_squared_error}
"""Metric name, in ``task.metrics`` and records -> its function."""


def warnings_for(predictions: np.ndarray) -> list[str]:
    """Warnings about predictions (n, components) that make their score meaningless."""
    if len(predictions) < 2:
        return []
    low, high = predictions.min(axis=0), predictions.max(axis=0)
    if (high - low <= CONSTANT * np.maximum(1.0, np.maximum(abs(low), abs(high)))).all():
        return [f"all {len(predictions)} predictions are the same: the model tells no two examples apart"]
    return []


class Scorer(scorer.Scorer):
    """Scores vector regression."""

    METRICS = METRICS
    KIND = "vector regression"

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score predictions of shape (n, components) against labels of the same shape.

        Raises:
            DivergedError: a prediction is not finite.
            ScoringError: the shapes differ.
        """
        predictions = np.asarray(evaluation.predictions, dtype=np.float64)
        references = np.asarray(evaluation.label_ids, dtype=np.float64)
        if predictions.shape != references.shape:
            raise ScoringError(
                f"predictions have shape {predictions.shape} and labels {references.shape}; expected the same shape"
            )
        require_finite(predictions)
        self.warnings = warnings_for(predictions)
        return {name: METRICS[name](predictions, references) for name in self.task.metrics}
