"""GLUE's metrics as ``evaluate`` metrics that need no hub, and the way from a model's logits to them.

Every score is a fraction: accuracy and F1 lie in [0, 1], Matthews, Pearson and Spearman in [-1, 1]. Where a score is
not defined, this is what comes back:

===================== ============================================= =================================================
metric                not defined when                              value
===================== ============================================= =================================================
f1                    class 1 is neither predicted nor referenced   0.0, scikit-learn's convention
matthews_correlation  predictions or references are all one class   0.0, scikit-learn's convention
pearson, spearmanr    predictions or references are constant, n < 2 NaN: no convention, and 0 would be a made-up score
===================== ============================================= =================================================
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
"""Regression predictions whose spread is below this share of their size (or of 1) count as one value: float32 noise."""


class _Metric(evaluate.Metric):
    """A metric over two columns, ``predictions`` and ``references``, that leaves no trace on the disk.

    ``evaluate`` otherwise writes both columns to a locked file under the user's home, where the runs of a sweep wait
    for each other and a read-only home is an error.
    """

    DTYPE: ClassVar[str]
    """Type of both columns, as ``datasets`` spells it."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """Name no folder: the base class would create one under the home even for a metric kept in memory."""
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
    """The share of examples whose predicted class is the reference."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_Metric):
    """The harmonic mean of precision and recall of class 1, of two classes."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, pos_label=1, average="binary", zero_division=0.0))}


class MatthewsCorrelation(_Metric):
    """The correlation of predicted and reference classes, for any number of classes (Gorodkin, 2004)."""

    DTYPE = "int64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        # scikit-learn gives 0 here too, after a warning about the shape of a confusion matrix that we never see.
        undefined = _is_constant(predictions) or _is_constant(references)
        return {"matthews_correlation": 0.0 if undefined else float(matthews_corrcoef(references, predictions))}


class Pearson(_Metric):
    """The linear correlation of predicted and reference values."""

    DTYPE = "float64"

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        undefined = _is_constant(predictions) or _is_constant(references)
        return {"pearson": float("nan") if undefined else float(stats.pearsonr(predictions, references).statistic)}


class Spearman(_Metric):
    """The correlation of the ranks of predicted and reference values; equal values share their mean rank."""

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
"""The name of a metric in a task's configuration, and in a record -> its class."""


def _is_constant(values: np.ndarray) -> bool:
    """Whether all values are equal, as they are where there is only one."""
    return bool(np.all(values == values[0]))


def compute(names: Sequence[str], predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Score predictions.

    Args:
        names: keys of ``METRICS``.
        predictions: shape (n,); class numbers for the classification metrics, values for the correlations.
        references: shape (n,), likewise.

    Returns:
        Name -> score, in the order of ``names``; see the table at the top of this module for undefined scores.

    Raises:
        ScoringError: no examples, two shapes that differ, or fractions where a class is expected.
    """
    if predictions.ndim != 1 or predictions.shape != references.shape or len(predictions) == 0:
        raise ScoringError(
            f"predictions have shape {predictions.shape} and references {references.shape}: "
            "expected one of each for every example, and at least one example"
        )
    classes = [name for name in names if METRICS[name].DTYPE == "int64"]
    for column, values in (("predictions", predictions), ("references", references)):
        # The conversion to int64 would cut 0.7 down to class 0 without a word.
        if classes and not np.issubdtype(values.dtype, np.integer):
            raise ScoringError(
                f"{classes[0]} compares class numbers: expected integers as {column}, not {values.dtype}"
            )
    combined = evaluate.combine([METRICS[name]() for name in names])
    return combined.compute(predictions=predictions, references=references)


def require_finite(logits: np.ndarray) -> None:
    """Refuse to score a model that has diverged.

    Raises:
        DivergedError: a logit, or a predicted value, is not finite.
    """
    broken = ~np.isfinite(logits)
    if broken.any():
        first = int(np.argwhere(broken)[0][0])
        raise DivergedError(
            f"{int(broken.sum())} of {logits.size} logits are not finite (the first in row {first}): training has "
            "diverged, and a score over them would mean nothing; a lower train.lr is the usual cure"
        )


def predictions_of(logits: np.ndarray, kind: str) -> np.ndarray:
    """What a model predicts: the class of the largest logit, or the value itself.

    Args:
        logits: shape (n, classes) for ``classification``; (n, 1) or (n,) for ``regression``.
        kind: ``task.kind``.

    Returns:
        Shape (n,): int64 class numbers, or float64 values.

    Raises:
        DivergedError: a logit is not finite.
        ScoringError: a shape that does not fit the kind.
    """
    require_finite(logits)
    if kind == "classification":
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ScoringError(f"logits of a classification have shape {logits.shape}: expected (n, classes)")
        return logits.argmax(axis=1).astype(np.int64)
    if kind == "regression":
        if logits.ndim == 2 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if logits.ndim != 1:
            raise ScoringError(f"predictions of a regression have shape {logits.shape}: expected (n, 1) or (n,)")
        return logits.astype(np.float64)
    raise ScoringError(f"task.kind={kind!r}: expected 'classification' or 'regression'")


def warnings_for(predictions: np.ndarray, kind: str) -> list[str]:
    """Say in words what makes a score of these predictions worthless; empty where nothing does.

    Args:
        predictions: shape (n,), from :func:`predictions_of`.
        kind: ``task.kind``.
    """
    n = len(predictions)
    if n < 2:
        return []
    low, high = predictions.min(), predictions.max()
    if kind == "classification" and low == high:
        return [f"all {n} predictions are class {low}: the model tells no two examples apart"]
    if kind == "regression" and high - low <= CONSTANT * max(1.0, abs(low), abs(high)):
        return [f"all {n} predictions are {low:.6g}: the model tells no two examples apart, so no correlation exists"]
    return []


class Scorer(scorer.Scorer):
    """Scores a classification, or a regression of texts; raises what :func:`predictions_of` and :func:`compute` do."""

    METRICS = METRICS

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score logits of shape (n, classes) or (n, 1) against n labels."""
        predictions = predictions_of(np.asarray(evaluation.predictions), self.task.kind)
        self.warnings = warnings_for(predictions, self.task.kind)
        return compute(self.task.metrics, predictions, np.asarray(evaluation.label_ids))
