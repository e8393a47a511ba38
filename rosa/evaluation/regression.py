"""How well vectors are predicted: the metrics of a regression of vectors, and the way to them from a model's output.

``mse`` is the mean over all examples and components of the squared error. ``r2``, the coefficient of determination, is
the share of the labels' variance that the predictions explain, all components together: 1 at best, below 0 where the
mean label would be the better prediction, NaN where the labels do not vary (a share of nothing).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rosa.errors import ScoringError
from rosa.evaluation import scorer
from rosa.evaluation.classification import require_finite

if TYPE_CHECKING:
    from transformers import EvalPrediction


def mean_squared_error(predictions: np.ndarray, references: np.ndarray) -> float:
    """Of two (n, components) arrays."""
    return float(np.mean((predictions - references) ** 2))


def r2(predictions: np.ndarray, references: np.ndarray) -> float:
    """Of two (n, components) arrays; each component's variance is about its own mean."""
    variance = float(np.mean((references - references.mean(axis=0)) ** 2))
    return 1 - mean_squared_error(predictions, references) / variance if variance > 0 else float("nan")


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"r2": r2, "mse": mean_squared_error}
"""The name of a metric in a task's configuration, and in a record -> its function."""


class Scorer(scorer.Scorer):
    """Scores a regression of vectors."""

    METRICS = METRICS
    OF = "of vectors"

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score predictions of shape (n, components) against labels of the same shape.

        Raises:
            DivergedError: a prediction is not finite.
            ScoringError: two shapes that differ.
        """
        predictions = np.asarray(evaluation.predictions, dtype=np.float64)
        references = np.asarray(evaluation.label_ids, dtype=np.float64)
        if predictions.shape != references.shape:
            raise ScoringError(f"predictions have shape {predictions.shape} and labels {references.shape}")
        require_finite(predictions)
        return {name: METRICS[name](predictions, references) for name in self.task.metrics}
