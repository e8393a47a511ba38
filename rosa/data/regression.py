"""Make the splits of a vector regression: the real diabetes set, or Gaussian inputs that a teacher model labels.

The teacher is the student plus a random low-rank matrix in each weight. So fine-tuning can reach zero error, and the
rank of the weight change that does so is known. The labels have no noise.
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
from rosa.data import diabetes
from rosa.errors import DataError
from rosa.utils.seeding import generator


class Vectors(Dataset[dict[str, Tensor]]):
    """Dataset of ``features`` (in,) and ``labels`` (out,) in two tensors.

    Reading a batch of vectors from a ``datasets.Dataset`` would take longer than a training step of a small model.

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
    """The splits of a vector regression, and the facts about them for the run's record."""

    train: Vectors
    evaluation: dict[str, Vectors]
    """Split name -> vectors, in the order of ``TaskConfig.evaluation``."""
    facts: dict[str, Any]
    """JSON values: ``source``, ``seed`` and ``splits``: for each split ``rows``, ``sha256`` of its inputs and labels,
    and ``pretrained_mse``, the student's mean squared error before training."""


def load(task: TaskConfig, data: DataConfig, student: nn.Module) -> VectorData:
    """Make the training split and all evaluation splits; ``train`` may be one of these too, to score the fit.

    Args:
        task: names the evaluation splits.
        data: source, sizes, seed, and the rank of the teacher's difference.
        student: the model with its pretrained weights; its output is a dictionary with ``logits`` (n, out).

    Raises:
        DataError: ``data.teacher.rank`` exceeds the smaller side of a weight, or there are too few real rows.
    """
    made = diabetes.splits(task, data) if data.source == "diabetes" else _taught(task, data, student)
    splits: dict[str, Vectors] = {}
    facts: dict[str, Any] = {"source": data.source, "seed": data.seed, "splits": {}}
    for name, (features, labels) in made.items():
        with torch.no_grad():
            error = student(features)["logits"] - labels
        splits[name] = Vectors(features, labels)
        digest = hashlib.sha256(features.numpy().tobytes() + labels.numpy().tobytes())
        pretrained_mse = float(error.double().square().mean())
        facts["splits"][name] = {"rows": len(labels), "sha256": digest.hexdigest(), "pretrained_mse": pretrained_mse}
    return VectorData(splits[TRAIN], {name: splits[name] for name in task.evaluation}, facts)


def _taught(task: TaskConfig, data: DataConfig, student: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Split name -> Gaussian features and the teacher's labels."""
    teacher = make_teacher(student, data.teacher.rank, data.seed)
    width = next(student.parameters()).shape[1]
    taught = {}
    for name in task.splits:
        rows = data.train_size if name == TRAIN else data.evaluation_size
        features = torch.randn(rows, width, generator=generator(data.seed, f"teacher.features.{name}"))
        with torch.no_grad():
            taught[name] = features, teacher(features.double())["logits"].float()
    return taught


def make_teacher(student: nn.Module, rank: int, seed: int) -> nn.Module:
    """A float64 copy of a model, with a random matrix of the given rank added to each weight matrix.

    The added matrix is a product of two Gaussian matrices, scaled to the Frobenius norm of the weight.

    Raises:
        DataError: the rank exceeds the smaller side of a weight.
    """
    teacher = copy.deepcopy(student).double()
    stream = generator(seed, "teacher.difference")
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            out_features, in_features = weight.shape
            if rank > min(weight.shape):
                raise DataError(
                    f"data.teacher.rank={rank}: {name} is {out_features} x {in_features}; expected a rank of at most "
                    f"{min(weight.shape)}"
                )
            left = torch.randn(out_features, rank, dtype=torch.float64, generator=stream)
            right = torch.randn(rank, in_features, dtype=torch.float64, generator=stream)
            difference = left @ right
            weight.add_(difference * (weight.norm() / difference.norm()))
    return teacher
