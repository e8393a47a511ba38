"""Metrics against closed forms and brute force, without scikit-learn and SciPy."""

from __future__ import annotations

import math
import random
import warnings

import evaluate
import numpy as np
import pytest
from datasets import Features, Value
from transformers import EvalPrediction

from rosa.config import TaskConfig
from rosa.errors import ConfigError, DivergedError, ScoringError
from rosa.evaluation import classification

CLASSES = ["accuracy", "f1", "matthews_correlation"]
CORRELATIONS = ["pearson", "spearmanr"]


def task(**changes: object) -> TaskConfig:
    settings = {
        "name": "cola",
        "texts": ["sentence"],
        "labels": ["no", "yes"],
        "metrics": ["matthews_correlation"],
        "headline": "matthews_correlation",
    }
    return TaskConfig(**(settings | changes))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_scores_of_a_confusion_matrix_worked_out_by_hand():
    references = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predictions = np.array([1, 1, 0, 1, 0, 0, 0, 0])  # 2 true positives, 1 missed, 1 false alarm, 4 true negatives
    scores = classification.compute(CLASSES, predictions, references)
    assert list(scores) == CLASSES
    assert scores["accuracy"] == pytest.approx(6 / 8)
    assert scores["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["matthews_correlation"] == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))


def test_class_metrics_against_counting_on_random_labels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        references, predictions = rng.integers(0, 2, size=(2, 37))
        scores = classification.compute(CLASSES, predictions, references)
        pairs = list(zip(predictions.tolist(), references.tolist(), strict=True))
        hits, alarms, misses = pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 1))
        assert scores["accuracy"] == pytest.approx(sum(p == r for p, r in pairs) / 37)
        assert scores["f1"] == pytest.approx(2 * hits / (2 * hits + alarms + misses))
        # Of two classes, Matthews is the linear correlation of the two columns of zeros and ones.
        assert scores["matthews_correlation"] == pytest.approx(np.corrcoef(predictions, references)[0, 1])


def test_accuracy_and_matthews_of_three_classes():
    references = np.array([0, 0, 1, 1, 2, 2])
    assert classification.compute(["accuracy"], np.array([0, 0, 1, 1, 2, 0]), references)["accuracy"] == pytest.approx(
        5 / 6
    )
    assert classification.compute(["matthews_correlation"], references, references)["matthews_correlation"] == 1.0


def test_correlations_against_brute_force():
    rng = np.random.default_rng(1)
    for _ in range(20):
        references = rng.integers(0, 11, size=41) / 2  # many ties, as in STS-B
        predictions = references + rng.normal(size=41)
        predictions[:5] = 1.0
        scores = classification.compute(CORRELATIONS, predictions, references)
        assert scores["pearson"] == pytest.approx(np.corrcoef(predictions, references)[0, 1])
        ranks = np.corrcoef(mean_ranks(predictions), mean_ranks(references))[0, 1]
        assert scores["spearmanr"] == pytest.approx(ranks)


def test_spearman_sees_the_order_alone_and_pearson_the_values():
    references = np.arange(1.0, 9.0)
    scores = classification.compute(CORRELATIONS, np.exp(references), references)
    assert scores["spearmanr"] == pytest.approx(1.0)
    assert 0 < scores["pearson"] < 0.95


@pytest.mark.parametrize(
    ("names", "predictions", "references", "expected"),
    [
        (["matthews_correlation"], [1, 1, 1, 1], [0, 1, 0, 1], 0.0),
        (["matthews_correlation"], [0, 1, 0, 1], [1, 1, 1, 1], 0.0),
        (["matthews_correlation"], [1, 1, 1, 1], [1, 1, 1, 1], 0.0),
        (["f1"], [0, 0, 0, 0], [0, 0, 0, 0], 0.0),
        (["pearson"], [2.5, 2.5, 2.5], [1.0, 2.0, 3.0], math.nan),
        (["spearmanr"], [1.0, 2.0, 3.0], [2.5, 2.5, 2.5], math.nan),
        (["pearson"], [1.0], [2.0], math.nan),
    ],
)
def test_undefined_scores_are_defined_and_silent(names, predictions, references, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification.compute(names, np.array(predictions), np.array(references))
    assert scores[names[0]] == pytest.approx(expected, nan_ok=True)


def test_metrics_write_nothing_and_draw_nothing(monkeypatch, tmp_path):
    """With a read-only home; the random streams that training uses are unchanged."""
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", blocked / "metrics")

    class Ordinary(evaluate.Metric):
        """A metric of ``evaluate`` as it comes."""

        def _info(self):
            column = Value("int64")
            features = Features({"predictions": column, "references": column})
            return evaluate.MetricInfo(description="", citation="", features=features)

    with pytest.raises(OSError, match="metrics"):
        Ordinary(keep_in_memory=True)

    before = random.getstate(), np.random.get_state()[1].copy(), np.random.get_state()[2]
    labels = np.array([0, 1, 1])
    assert classification.compute(CLASSES, labels, labels) == dict.fromkeys(CLASSES, 1.0)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert np.random.get_state()[2] == before[2]


def test_each_metric_works_by_itself_as_evaluate_metrics_do():
    accuracy = classification.METRICS["accuracy"]()
    assert isinstance(accuracy, evaluate.Metric)
    accuracy.add_batch(predictions=[0, 1], references=[0, 0])
    accuracy.add_batch(predictions=[1, 1], references=[1, 1])
    assert accuracy.compute() == {"accuracy": 0.75}
    assert accuracy.compute(predictions=[0], references=[1]) == {"accuracy": 0.0}


def test_an_unknown_metric_is_refused_with_the_nearest():
    known = "accuracy, f1, matthews_correlation, pearson, spearmanr"
    message = rf"unknown metric 'spearman'; expected some of {known}; did you mean spearmanr\?"
    with pytest.raises(ConfigError, match=message):
        classification.Scorer(task(metrics=["pearson", "spearman"], headline="pearson"))
    with pytest.raises(ConfigError, match="unknown metric 'bleu'"):
        classification.Scorer(task(metrics=["bleu"], headline="bleu"))


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([0, 1], [0, 1, 1], r"\(2,\) and references \(3,\)"),
        ([], [], r"with the same n > 0"),
        ([[0], [1]], [[0], [1]], r"\(2, 1\)"),
        ([0.7, 0.2], [1, 0], "predictions have dtype float64; expected integers"),
        ([1, 0], [0.7, 0.2], "references have dtype float64; expected integers"),
    ],
)
def test_columns_that_cannot_be_compared_are_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        classification.compute(["accuracy"], np.array(predictions), np.array(references))


def test_predictions_are_the_largest_logit_or_the_value():
    classes = classification.predictions_of(np.array([[0.1, 0.2, -1], [3, 2, 1]], dtype=np.float32), "classification")
    assert classes.tolist() == [1, 0]
    for values in (np.array([[1.5], [-2.0]], dtype=np.float32), np.array([1.5, -2.0])):
        assert classification.predictions_of(values, "regression").tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("logits", "kind", "error", "message"),
    [
        (
            [[0, 1], [math.nan, math.inf]],
            "classification",
            DivergedError,
            r"2 of 4 logits are not finite \(the first in row 1\)",
        ),
        ([[-math.inf]], "regression", DivergedError, "1 of 1 logits are not finite"),
        ([0.0, 1.0], "classification", ScoringError, r"\(2,\): expected \(n, classes\)"),
        ([[0.0], [1.0]], "classification", ScoringError, r"\(2, 1\): expected \(n, classes\)"),
        ([[0.0, 1.0]], "regression", ScoringError, r"\(1, 2\): expected \(n, 1\)"),
        ([[0.0, 1.0]], "ranking", ScoringError, "task.kind='ranking'"),
    ],
)
def test_logits_that_mean_nothing_are_refused(logits, kind, error, message):
    with pytest.raises(error, match=message):
        classification.predictions_of(np.array(logits), kind)


def test_constant_predictions_are_named_in_words():
    assert "all 3 predictions are class 1" in classification.warnings_for(np.array([1, 1, 1]), "classification")[0]
    noise = np.array([2.5, 2.5 + 1e-7, 2.5 - 1e-7])
    assert "all 3 predictions are 2.5" in classification.warnings_for(noise, "regression")[0]
    assert classification.warnings_for(np.array([1, 0, 1]), "classification") == []
    assert classification.warnings_for(np.array([2.5, 2.51, 2.5]), "regression") == []
    assert classification.warnings_for(np.array([1]), "classification") == []


def test_the_trainers_function_scores_logits_and_warns():
    score = classification.Scorer(task(metrics=["accuracy", "f1"], headline="f1"))
    logits = np.array([[0, 1], [2, 1], [0, 1], [0, 1]], dtype=np.float32)
    result = score(EvalPrediction(predictions=logits, label_ids=np.array([1, 0, 0, 1])))
    assert result == {"accuracy": pytest.approx(3 / 4), "f1": pytest.approx(4 / 5)}
    assert score.warnings == []

    score(EvalPrediction(predictions=logits[[0, 2]], label_ids=np.array([1, 0])))
    assert len(score.warnings) == 1
    assert score.warnings[0].startswith("all 2 predictions are class 1")


def test_the_trainers_function_scores_a_regression():
    labels = [0.0, 5.0]
    sts = task(name="stsb", kind="regression", labels=[], label_range=labels, metrics=CORRELATIONS, headline="pearson")
    result = classification.Scorer(sts)(
        EvalPrediction(predictions=np.array([[1.0], [2.0], [4.0]], dtype=np.float32), label_ids=np.array([5.0, 3, 1]))
    )
    expected = np.corrcoef([1, 2, 4], [5, 3, 1])[0, 1]
    assert result == {"pearson": pytest.approx(expected), "spearmanr": pytest.approx(-1.0)}
