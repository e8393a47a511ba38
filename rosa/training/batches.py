"""The order of examples, and their distribution to processes such that an update does not depend on their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import datasets
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from rosa.errors import DataError
from rosa.utils import distributed
from rosa.utils.names import IGNORED
from rosa.utils.seeding import generator

Examples: TypeAlias = datasets.Dataset | Dataset
"""Tokenized texts with ``input_ids``, or a PyTorch dataset of vectors that has a length."""


class BatchShares(Sampler[list[int]]):
    """One process's part of each batch: every n-th example, so that lengths are spread evenly over the n processes.

    The last batch of an epoch may have fewer examples than there are processes. A process that gets none is given the
    batch's first example as a stand-in, to which :func:`loss_weights` gives weight 0.

    Args:
        order: the order of all examples.
        batch: number of examples in a batch, over all processes.
        rank: this process's rank, from 0.
        count: number of processes.
    """

    def __init__(self, order: EpochSampler, batch: int, rank: int, count: int) -> None:
        self.order = order
        self.batch = batch
        self.rank = rank
        self.count = count

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        examples = list(self.order)
        for start in range(0, len(examples), self.batch):
            whole = examples[start : start + self.batch]
            yield whole[self.rank :: self.count] or whole[:1]

    @property
    def ends_with_stand_in(self) -> bool:
        """Whether the last batch of an epoch has no example for this process."""
        last = len(self.order) % self.batch or self.batch
        return self.rank >= last


def loss_weights(batches: Sequence[Mapping[str, Tensor]], stand_in: bool) -> Iterator[Tensor | float]:
    """Weights for the mean losses of an update's batches, such that the update averages over all examples (or tokens).

    Without them, the Trainer averages over batches, and DistributedDataParallel over processes, although batches
    differ in their numbers of examples or tokens.

    Args:
        batches: this process's batches of the update, with ``labels``, and ``input_ids`` for texts.
        stand_in: whether the last batch is a stand-in, with weight 0.

    Returns:
        One weight for each batch.
    """
    if len(batches) * distributed.count() == 1:
        return iter((1.0,))
    counted = torch.stack([_counted(batch) for batch in batches])
    if stand_in:
        counted[-1] = 0
    return iter(counted * (len(batches) * distributed.count()) / distributed.total(counted.sum()))


def _counted(batch: Mapping[str, Tensor]) -> Tensor:
    """The number of terms in a batch's mean loss: predicted tokens of a language model, otherwise examples."""
    labels = batch["labels"]
    if "input_ids" in batch and labels.dim() == 2:
        return (labels[:, 1:] != IGNORED).sum()  # a causal model does not predict the first token
    return torch.full((), len(labels), device=labels.device)  # torch.tensor would wait for the device


class EpochSampler(Sampler[int]):
    """A permutation of the examples that depends only on the seed and the epoch.

    Args:
        lengths: number of tokens of each example.
        batch: number of examples of an optimizer update, the size of the groups of similar length.
        group: whether to group by length.
        seed: the run's seed.
    """

    def __init__(self, lengths: Sequence[int], batch: int, group: bool, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch = batch
        self.group = group
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        stream = generator(self.seed, "order", self.epoch)
        if self.group:
            return iter(get_length_grouped_indices(self.lengths, self.batch, generator=stream))
        return iter(torch.randperm(len(self.lengths), generator=stream).tolist())


def lengths(split: Examples) -> list[int]:
    """The number of tokens of each text; 1 for each vector.

    Raises:
        DataError: the dataset is iterable only and has no length.
    """
    if isinstance(split, (datasets.IterableDataset, torch.utils.data.IterableDataset)):
        raise DataError(
            f"{type(split).__name__} is a stream without a length: expected a dataset with a length, since epochs and "
            "resuming count examples; read it into a datasets.Dataset first. (With your own Trainer, "
            "ResampleCallback(unit='step') can resample on a stream)"
        )
    if not isinstance(split, datasets.Dataset):
        return [1] * len(split)  # type: ignore[arg-type]  # PyTorch's class for any data set declares no length
    return [len(ids) for ids in split["input_ids"]]


def by_length(split: Examples) -> Examples:
    """Sort texts by length, so that batches need little padding; vectors are returned unchanged."""
    if not isinstance(split, datasets.Dataset):
        return split
    return split.select(torch.argsort(torch.tensor(lengths(split)), stable=True).tolist())
