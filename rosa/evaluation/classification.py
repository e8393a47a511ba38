"""GLUE's metrics, computed from a model's logits.

Every score is a fraction: accuracy and F1 are in [0, 1], Matthews, Pearson and Spearman in [-1, 1]. The values of
undefined scores are:

===================== ============================================== ================================================
metric                undefined if                                   value
===================== ============================================== ================================================
f1                    class 1 is neither predicted nor a reference   0.0, as in scikit-learn
matthews_correlation  predictions or references are a single class   0.0, as in scikit-learn
pearson, spearmanr    predictions or references are constant, n < 2  NaN, since no convention gives them a value
===================== ============================================== ================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rosa.errors import DivergedError, ScoringError
from rosa.evaluation import scorer

if TYPE_CHECKING:
    from transformers import EvalPrediction

CONSTANT = 1e-6
"""Regression predictions whose range is below this fraction of their magnitude (at least 1) are considered equal: the
differences are float32 rounding."""


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """The share of examples whose predicted class is the reference; (n,), (n,)."""
    return float(np.mean(predictions == references))


def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """The harmonic mean of precision and recall of class 1; (n,), (n,)."""
    hits = int(np.sum((predictions == 1) & (references == 1)))
    named = int(np.sum(predictions == 1) + np.sum(references == 1))
    return 2 * hits / named if named else 0.0


def matthews_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation of predicted and reference classes, of any number (Gorodkin 2004); (n,), (n,)."""
    if _is_constant(predictions) or _is_constant(references):
        return 0.0
    classes = np.union1d(predictions, references)[:, None]
    predicted, true = (predictions == classes).sum(1, dtype=float), (references == classes).sum(1, dtype=float)
    hits, n = float(np.sum(predictions == references)), float(len(predictions))
    return float((hits * n - predicted @ true) / np.sqrt((n * n - predicted @ predicted) * (n * n - true @ true)))


def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """The linear correlation of predicted and reference values; (n,), (n,)."""
    from scipy import stats  # takes a second to load, and few tasks need it

    undefined = _is_constant(predictions) or _is_constant(references)
    return float("nan") if undefined else float(stats.pearsonr(predictions, references).statistic)


def spearmanr(predictions: np.ndarray, references: np.ndarray) -> float:
    """The rank correlation of predicted and reference values, where equal values get their mean rank; (n,), (n,)."""
    from scipy import stats

    undefined = _is_constant(predictions) or _is_constant(references)
    return float("nan") if undefined else float(stats.spearmanr(predictions, references).statistic)


@dataclass(frozen=True)
class Metric:
    """A metric of predictions (n,) and references (n,)."""

    score: Callable[[np.ndarray, np.ndarray], float]
    of_classes: bool
    """Whether it compares class numbers; otherwise values."""


METRICS = {
    "accuracy": Metric(accuracy, of_classes=True),
    "f1": Metric(f1, of_classes=True),
    "matthews_correlation": Metric(matthews_correlation, of_classes=True),
    "pearson": Metric(pearson, of_classes=False),
    "spearmanr": Metric(spearmanr, of_classes=False),
}
"""By their names in ``task.metrics`` and in records."""


def _is_constant(values: np.ndarray) -> bool:
    """Whether all values (n,) are equal; true for n = 1."""
    return bool(np.all(values == values[0]))


def compute(names: Sequence[str], predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compute metrics of predictions.

    Args:
        names: keys of ``METRICS``.
        predictions: (n,) class numbers for the classification metrics, values for the correlations.
        references: (n,), likewise.

    Returns:
        Metric name -> score, in the order of ``names``; the module's table gives the values of undefined scores.

    Raises:
        ScoringError: n = 0, the shapes differ, or classes are not integers.
    """
    if predictions.ndim != 1 or predictions.shape != references.shape or len(predictions) == 0:
        raise ScoringError(
            f"predictions have shape {predictions.shape} and references {references.shape}: expected both to be (n,) "
            "with the same n > 0"
        )
    classes = [name for name in names if METRICS[name].of_classes]
    for column, values in (("predictions", predictions), ("references", references)):
        if classes and not np.issubdtype(values.dtype, np.integer):
            raise ScoringError(
                f"{classes[0]} compares class numbers: {column} have dtype {values.dtype}; expected integers"
            )
    predictions, references = (
        values.astype(np.int64 if classes else np.float64) for values in (predictions, references)
    )
    return {name: METRICS[name].score(predictions, references) for name in names}


def require_finite(logits: np.ndarray) -> None:
    """Raise if a logit or predicted value is not finite.

    Raises:
        DivergedError: the message names their number and the first row.
    """
    broken = ~np.isfinite(logits)
    if broken.any():
        first = int(np.argwhere(broken)[0][0])
        raise DivergedError(
            f"{int(broken.sum())} of {logits.size} logits are not finite (the first in row {first}): training has "
            "diverged; try a lower train.lr"
        )


def predictions_of(logits: np.ndarray, kind: str) -> np.ndarray:
    """Predictions from logits: the class of the largest logit, or the value itself for regression.

    Args:
        logits: shape (n, classes) for ``classification``; (n, 1) or (n,) for ``regression``.
        kind: ``task.kind``.

    Returns:
        Shape (n,): int64 class numbers, or float64 values.

    Raises:
        DivergedError: a logit is not finite.
        ScoringError: an unknown kind, or a shape that does not fit it.
    """
    require_finite(logits)
    if kind == "classification":
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ScoringError(f"classification logits have shape {logits.shape}: expected (n, classes)")
        return logits.argmax(axis=1).astype(np.int64)
    if kind == "regression":
        if logits.ndim == 2 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if logits.ndim != 1:
            raise ScoringError(f"regression predictions have shape {logits.shape}: expected (n, 1) or (n,)")
        return logits.astype(np.float64)
    raise ScoringError(f"task.kind={kind!r}: expected 'classification' or 'regression'")


def warnings_for(predictions: np.ndarray, kind: str) -> list[str]:
    """Warnings about predictions that make their score meaningless; empty if there are none.

    Args:
        predictions: shape (n,), from :func:`predictions_of`.
        kind: ``task.kind``.
    """
    n = len(predictions)
    if n < 2:
        return []
    low, high = predictions.min(), predictions.max()
    if kind == "classification" and low == high:
        return [f"all {n} predictions are class {low}: the model does not distinguish the examples"]
    if kind == "regression" and high - low <= CONSTANT * max(1.0, abs(low), abs(high)):
        return [
            f"all {n} predictions are {low:.6g}: the model does not distinguish the examples, and their correlation is "
            "undefined"
        ]
    return []


class Scorer(scorer.Scorer):
    """Scores text classification or regression; raises the errors of :func:`predictions_of` and :func:`compute`."""

    METRICS = METRICS

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score logits (n, classes) or (n, 1) against labels (n,)."""
        predictions = predictions_of(np.asarray(evaluation.predictions), self.task.kind)
        self.warnings = warnings_for(predictions, self.task.kind)
        return compute(self.task.metrics, predictions, np.asarray(evaluation.label_ids))
