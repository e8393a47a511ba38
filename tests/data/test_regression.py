"""Data of vector regression: the teacher's distance, its labels, and the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rosa.config import DataConfig, ModelConfig, PerceptronConfig, TaskConfig, TeacherConfig
from rosa.data import regression
from rosa.errors import DataError
from rosa.models.perceptron import Perceptron, load

TASK = TaskConfig(name="regression", kind="vector_regression", metrics=["r2", "mse"], headline="r2")
LINEAR, MLP = [64, 32], [64, 40, 32]


def student(widths: list[int]) -> Perceptron:
    return load(ModelConfig("student", "perceptron", perceptron=PerceptronConfig(widths)))[0]


def data(rank: int = 24, seed: int = 0) -> DataConfig:
    return DataConfig("teacher", train_size=200, evaluation_size=50, seed=seed, teacher=TeacherConfig(rank))


@pytest.mark.parametrize("widths", [LINEAR, MLP])
@pytest.mark.parametrize("rank", [1, 24, 32])
def test_each_weight_of_the_teacher_is_exactly_that_rank_away(widths: list[int], rank: int) -> None:
    model = student(widths)
    before = [weight.detach().clone() for weight in model.parameters()]
    made = regression.make_teacher(model, rank, seed=3)
    for weight, moved, first in zip(model.parameters(), made.parameters(), before, strict=True):
        assert torch.equal(weight, first), "the student itself has moved"
        difference = (moved - weight.double()).detach().numpy()
        values = np.linalg.svd(difference, compute_uv=False)
        assert (values > 1e-10 * values[0]).sum() == rank
        assert np.linalg.norm(difference) == pytest.approx(float(weight.detach().double().norm()), rel=1e-12)


@pytest.mark.parametrize("widths", [LINEAR, MLP])
def test_labels_are_what_the_teacher_says(widths: list[int]) -> None:
    """Labels recomputed by NumPy; without noise, the teacher's own error is float32's rounding."""
    model = student(widths)
    loaded = regression.load(TASK, data(), model)
    weights = [w.detach().numpy() for w in regression.make_teacher(model, 24, seed=0).parameters()]
    own = [w.detach().numpy() for w in model.parameters()]
    for name, split in {"train": loaded.train, **loaded.evaluation}.items():
        errors = {}
        for who, matrices in (("teacher", weights), ("student", own)):
            hidden = split.features.numpy().astype(np.float64)
            for matrix in matrices[:-1]:
                hidden = np.maximum(hidden @ matrix.T, 0)
            errors[who] = float(np.mean((hidden @ matrices[-1].T - split.labels.numpy()) ** 2))
        assert errors["teacher"] < 1e-12
        assert loaded.facts["splits"][name]["pretrained_mse"] == pytest.approx(errors["student"], rel=1e-4)
        assert errors["student"] > 0.1


def test_least_squares_on_the_train_split_finds_the_teacher() -> None:
    """As the theorem assumes: the optimum is known, at rank 24 from the pretrained weight."""
    model = student(LINEAR)
    loaded = regression.load(TASK, data(), model)
    features, labels = loaded.train.features.double().numpy(), loaded.train.labels.double().numpy()
    solution = np.linalg.lstsq(features, labels, rcond=None)[0].T
    values = np.linalg.svd(solution - model.layers[0].weight.detach().double().numpy(), compute_uv=False)
    assert (values > 1e-4 * values[0]).sum() == 24
    validation = loaded.evaluation["validation"]
    assert np.mean((validation.features.double().numpy() @ solution.T - validation.labels.numpy()) ** 2) < 1e-10


def test_features_are_standard_normal() -> None:
    features = regression.load(TASK, data(), student(LINEAR)).train.features
    assert features.dtype == torch.float32
    assert abs(float(features.mean())) < 4 / features.numel() ** 0.5
    assert float(features.std()) == pytest.approx(1, abs=0.03)


def test_the_seed_of_the_data_decides_all_of_it() -> None:
    first, again, other = (regression.load(TASK, data(seed=seed), student(LINEAR)) for seed in (0, 0, 1))
    assert first.facts == again.facts
    assert torch.equal(first.train[7]["labels"], again.train[7]["labels"])
    digests = [split["sha256"] for loaded in (first, other) for split in loaded.facts["splits"].values()]
    assert len(set(digests)) == 4, "two splits or two seeds hold the same rows"
    assert [len(first.train), len(first.evaluation["validation"])] == [200, 50]
    assert first.facts["splits"]["train"]["rows"] == 200


def test_rank_above_a_weight_is_refused_by_name() -> None:
    with pytest.raises(
        DataError, match=r"data\.teacher\.rank=33: layers\.0\.weight is 32 x 64; expected a rank of at most 32"
    ):
        regression.load(TASK, data(rank=33), student(LINEAR))


def test_a_student_has_relu_between_its_layers_and_none_at_the_end() -> None:
    """Mean sizes stay about the same from layer to layer; a loss is the mean over all components."""
    model = student([512, 256, 128])
    x = torch.randn(400, 512, generator=torch.Generator().manual_seed(1))
    out = model(x, labels=torch.zeros(400, 128))
    first, last = (layer.weight for layer in model.layers)
    expected = torch.clamp(x @ first.T, min=0) @ last.T
    assert torch.allclose(out["logits"], expected, atol=1e-4)
    assert float(out["loss"]) == pytest.approx(float(expected.square().mean()), rel=1e-5)
    assert float(expected.std()) == pytest.approx(1, abs=0.15)
