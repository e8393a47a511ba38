"""The metrics of a regression of vectors, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from transformers import EvalPrediction

from rosa.config import TaskConfig
from rosa.errors import DivergedError
from rosa.evaluation import regression
from rosa.evaluation.classification import CONSTANT


def scorer(*names: str) -> regression.Scorer:
    return regression.Scorer(TaskConfig(name="x", kind="vector_regression", metrics=list(names), headline=names[0]))


@pytest.mark.parametrize("components", [1, 5])
def test_against_scikit_learn(components: int) -> None:
    random = np.random.default_rng(0)
    references = (random.standard_normal((40, components)) * np.arange(1, components + 1) + 3).astype(np.float32)
    predictions = (references + random.standard_normal(references.shape)).astype(np.float32)
    scores = scorer("r2", "mse")(EvalPrediction(predictions, references))
    assert list(scores) == ["r2", "mse"]
    assert scores["mse"] == pytest.approx(metrics.mean_squared_error(references, predictions), rel=1e-6)
    expected = metrics.r2_score(references, predictions, multioutput="variance_weighted")
    assert scores["r2"] == pytest.approx(expected, rel=1e-6)


def test_ends_of_the_scale() -> None:
    references = np.array([[1.0, 0.0], [3.0, 4.0]])
    assert regression.r2(references, references) == 1
    assert regression.r2(np.broadcast_to(references.mean(axis=0), (2, 2)), references) == 0
    assert np.isnan(regression.r2(references, np.ones((2, 2))))


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown metric of vector regression 'msee'; .*; did you mean mse"):
        scorer("msee")
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and labels \(2, 2\)"):
        scorer("mse")(EvalPrediction(np.zeros((2, 3)), np.zeros((2, 2))))
    with pytest.raises(DivergedError, match=r"1 of 4 logits are not finite \(the first in row 1\)"):
        scorer("mse")(EvalPrediction(np.array([[0, 1], [np.nan, 1]]), np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("predictions", "flagged"),
    [
        ([], False),
        ([[1.0, 2.0]], False),  # one is no sign of anything
        ([[1.0, 2.0]] * 2, True),
        ([[1.0, 2.0], [1.0, 2.1]], False),  # one component is enough
        ([[0.0], [0.5 * CONSTANT]], True),  # small numbers are compared with 1
        ([[0.0], [1.5 * CONSTANT]], False),
        ([[-1e6], [-1e6 + 5e5 * CONSTANT]], True),  # and large ones with themselves
        ([[-1e6], [-1e6 + 2e6 * CONSTANT]], False),
    ],
)
def test_predictions_that_are_all_the_same_are_flagged(predictions: list[list[float]], flagged: bool) -> None:
    found = regression.warnings_for(np.array(predictions).reshape(len(predictions), -1 if predictions else 2))
    assert [line.startswith(f"all {len(predictions)} predictions are the same") for line in found] == [True] * flagged
