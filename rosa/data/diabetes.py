"""Read scikit-learn's diabetes set: a real vector regression, of 442 patients of different ages.

The label is the progression of the disease in a year, the features are ten measurements (Efron et al. 2004, "Least
Angle Regression"). The younger half, below the median age, are for pretraining; the older are a run's splits. So
fine-tuning has to adapt to a shift that is in the data, and the rank of the weight change that does so is not known.
scikit-learn ships the file, so nothing is fetched.

Features are standardised over all patients and followed by a 1, since the network has no bias. Labels are standardised
by mean and deviation of the younger half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rosa.config import TRAIN, DataConfig, TaskConfig
from rosa.errors import DataError
from rosa.utils.seeding import generator

Rows = tuple[Tensor, Tensor]
"""Features (n, 11) and labels (n, 1), in float32."""


def younger() -> Rows:
    """The patients below the median age, for pretraining."""
    return _halves()[0]


def splits(task: TaskConfig, data: DataConfig) -> Mapping[str, Rows]:
    """Split name -> its rows, drawn without replacement from the older half with the seed of the data.

    Raises:
        DataError: the splits have more rows than there are.
    """
    features, labels = _halves()[1]
    sizes = {name: data.train_size if name == TRAIN else data.evaluation_size for name in task.splits}
    if sum(sizes.values()) > len(labels):
        raise DataError(
            f"data.train_size={data.train_size}, data.evaluation_size={data.evaluation_size}: the splits "
            f"{', '.join(sizes)} have {sum(sizes.values())} rows; expected at most {len(labels)}, the older half of "
            "the diabetes set"
        )
    order = torch.randperm(len(labels), generator=generator(data.seed, "diabetes.splits"))
    drawn = order[: sum(sizes.values())].split(list(sizes.values()))
    return {name: (features[rows], labels[rows]) for name, rows in zip(sizes, drawn, strict=True)}


def _halves() -> tuple[Rows, Rows]:
    """The younger and the older half, each in the file's order."""
    from sklearn.datasets import load_diabetes

    # Columns of mean 0 and norm 1; the first is the age.
    columns, progression = load_diabetes(return_X_y=True)
    features = np.column_stack([columns * len(columns) ** 0.5, np.ones(len(columns))])
    young = columns[:, 0] < np.median(columns[:, 0])
    labels = (progression - progression[young].mean()) / progression[young].std()
    whole = torch.tensor(features, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)[:, None]
    first, second = ((whole[0][rows], whole[1][rows]) for rows in (torch.tensor(young), torch.tensor(~young)))
    return first, second
