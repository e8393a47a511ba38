"""GLUE's metrics, computed from a model's logits, as ``evaluate`` metrics that do not need the hub.

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

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from rosa.errors import DivergedError, ScoringError
from rosa.evaluation import scorer

if TYPE_CHECKING:
    from transformers import EvalPrediction

CONSTANT = 1e-6
"""Regression predictions whose range is below this fraction of their magnitude (at least 1) are considered equal: the
differences are float32 rounding."""


class _Metric(evaluate.Metric):
    """A metric of the columns ``predictions`` and ``references`` that writes nothing to disk.

    By default ``evaluate`` writes both columns to a locked file under the user's home: the runs of a sweep would wait
    for each other, and a read-only home would raise.
    """

    DTYPE: ClassVar[str]
    """Type of both columns, by its name in ``datasets``."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """Return no folder: the base class would create one under the home even for an in-memory metric."""
        return ""

    def _info(self) -> evaluate.MetricInfo:
        column = Value(self.DTYPE)
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").strip(),
            citation="",
            features=Features({"predictions": column, "references": column}),
            format="numpy",
        )


class Accuracy(_Metric):
    """Share of examples whose predicted class is the reference."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_Metric):
    """Harmonic mean of precision and recall of class 1, for two classes."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, pos_label=1, average="binary", zero_division=0.0))}


class MatthewsCorrelation(_Metric):
    """Matthews correlation of predicted and reference classes, for any number of classes (Gorodkin 2004)."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        # scikit-learn also returns 0, but with a confusing warning.
        undefined = _is_constant(predictions) or _is_constant(references)
        return {"matthews_correlation": 0.0 if undefined else float(matthews_corrcoef(references, predictions))}


class Pearson(_Metric):
    """Linear correlation of predicted and reference values."""

    DTYPE = "float64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        undefined = _is_constant(predictions) or _is_constant(references)
        return {"pearson": float("nan") if undefined else float(stats.pearsonr(predictions, references).statistic)}


class Spearman(_Metric):
    """Rank correlation of predicted and reference values; equal values get their mean rank."""

    DTYPE = "float64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        undefined = _is_constant(predictions) or _is_constant(references)
        return {"spearmanr": float("nan") if undefined else float(stats.spearmanr(predictions, references).statistic)}


METRICS: dict[str, type[_Metric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews_correlation": MatthewsCorrelation,
    "pearson": Pearson,
    "spearmanr": Spearman,
}
"""Metric name, in ``task.metrics`` and records -> its class."""


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
    classes = [name for name in names if METRICS[name].DTYPE == "int64"]
    for column, values in (("predictions", predictions), ("references", references)):
        # The conversion to int64 would silently truncate 0.7 to class 0.
        if classes and not np.issubdtype(values.dtype, np.integer):
            raise ScoringError(
                f"{classes[0]} compares class numbers: {column} have dtype {values.dtype}; expected integers"
            )
    combined = evaluate.combine([METRICS[name]() for name in names])
    return combined.compute(predictions=predictions, references=references)


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
