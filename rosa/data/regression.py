"""Regression data made on the spot: Gaussian vectors, labelled by a teacher near the student's pretrained weights.

The teacher is the student with a random matrix of low rank added to each weight, so that fine-tuning the student has a
solution without error, at a known rank from where it starts. Labels carry no noise.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rosa.config import TRAIN, DataConfig, TaskConfig
from rosa.errors import DataError
from rosa.utils.seeding import generator


class Vectors(Dataset[dict[str, Tensor]]):
    """Examples of ``features`` (in,) and ``labels`` (out,), kept as tensors.

    A ``datasets.Dataset`` takes longer to hand out a batch of vectors than a small model takes to learn from it.

    Args:
        features: (n, in).
        labels: (n, out).
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features = features
        self.labels = labels

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"features": self.features[row], "labels": self.labels[row]}


@dataclass(frozen=True)
class VectorData:
    """The splits of a regression, and what a record has to say about them."""

    train: Vectors
    evaluation: dict[str, Vectors]
    """By split name, in the order of ``TaskConfig.evaluation``."""
    facts: dict[str, Any]
    """Plain values that JSON can hold.

    ``source``, ``seed`` and ``splits``: for each split ``rows``, ``sha256`` (of its vectors and labels) and
    ``pretrained_mse``, the mean squared error of the student before any training.
    """


def load(task: TaskConfig, data: DataConfig, student: nn.Module) -> VectorData:
    """Draw the train split and every evaluation split, and have the teacher label them.

    Args:
        task: names its evaluation splits.
        data: sizes, seed, and how far away the teacher is.
        student: with its pretrained weights, a model whose output is a dictionary with ``logits``.

    Raises:
        DataError: a weight too small for the rank of the difference.
    """
    teacher = make_teacher(student, data.teacher.rank, data.seed)
    width = next(student.parameters()).shape[1]
    splits: dict[str, Vectors] = {}
    facts: dict[str, Any] = {"source": "teacher", "seed": data.seed, "splits": {}}
    for name in task.splits:
        rows = data.train_size if name == TRAIN else data.evaluation_size
        features = torch.randn(rows, width, generator=generator(data.seed, f"teacher.features.{name}"))
        with torch.no_grad():
            labels = teacher(features.double())["logits"].float()
            error = student(features)["logits"] - labels
        splits[name] = Vectors(features, labels)
        digest = hashlib.sha256(features.numpy().tobytes() + labels.numpy().tobytes())
        pretrained_mse = float(error.double().square().mean())
        facts["splits"][name] = {"rows": rows, "sha256": digest.hexdigest(), "pretrained_mse": pretrained_mse}
    return VectorData(splits.pop(TRAIN), splits, facts)


def make_teacher(student: nn.Module, rank: int, seed: int) -> nn.Module:
    """A float64 copy of a model with a random matrix of this rank added to each weight matrix.

    The matrix is a product of two Gaussian ones, scaled to the Frobenius norm of the weight that it is added to.

    Raises:
        DataError: the rank is more than a weight's smaller side.
    """
    teacher = copy.deepcopy(student).double()
    stream = generator(seed, "teacher.difference")
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            out_features, in_features = weight.shape
            if rank > min(weight.shape):
                raise DataError(
                    f"data.teacher.rank={rank}: {name} is {out_features} x {in_features}, so the difference can have "
                    f"rank {min(weight.shape)} at most"
                )
            left = torch.randn(out_features, rank, dtype=torch.float64, generator=stream)
            right = torch.randn(rank, in_features, dtype=torch.float64, generator=stream)
            difference = left @ right
            weight.add_(difference * (weight.norm() / difference.norm()))
    return teacher
