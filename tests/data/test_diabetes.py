"""The real vector regression: scikit-learn's diabetes set, standardised and split."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from rosa.config import DataConfig, TaskConfig
from rosa.data import diabetes
from rosa.errors import DataError

TASK = TaskConfig("regression", "vector_regression", metrics=["mse"], headline="mse", evaluation=["validation", "test"])


def data(seed: int = 0, train: int = 128) -> DataConfig:
    return DataConfig("diabetes", train_size=train, evaluation_size=50, seed=seed)


def expected(younger: bool) -> np.ndarray:
    """Features, the constant and the label of one half, from the raw file and scikit-learn's own scaler; sorted."""
    raw, label = load_diabetes(return_X_y=True, scaled=False)
    young = raw[:, 0] < np.median(raw[:, 0])
    scaled = StandardScaler().fit(label[young, None]).transform(label[:, None])
    whole = np.hstack([StandardScaler().fit_transform(raw), np.ones((len(raw), 1)), scaled])
    return whole[young == younger]


def ordered(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 4).T)]


def test_the_younger_half_is_for_pretraining() -> None:
    features, labels = diabetes.younger()
    assert features.dtype == labels.dtype == torch.float32
    np.testing.assert_allclose(np.hstack([features, labels]), expected(younger=True), atol=1e-5)
    assert (float(labels.mean()), float(labels.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def test_the_splits_are_the_older_half_each_row_once() -> None:
    splits = diabetes.splits(TASK, data())
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {"train": 128, "validation": 50, "test": 50}
    drawn = np.vstack([np.hstack([features, labels]) for features, labels in splits.values()])
    np.testing.assert_allclose(ordered(drawn), ordered(expected(younger=False)), atol=1e-5)


def test_the_seed_decides_the_splits() -> None:
    first, again, other = (diabetes.splits(TASK, data(seed))["test"][1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_rows_than_there_are_are_refused() -> None:
    message = (
        "data.train_size=129, data.evaluation_size=50: the splits train, validation, test have 229 rows; expected at"
    )
    with pytest.raises(DataError, match=re.escape(message) + " most 228"):
        diabetes.splits(TASK, data(train=129))
