"""How several processes share a batch, without changing the update that it makes."""

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
"""Tokenized texts with ``input_ids``, or a PyTorch data set of vectors that knows its length."""


class BatchShares(Sampler[list[int]]):
    """One process's part of each batch: every n-th of its examples, so that all get short and long ones alike.

    The last batch of an epoch may not be divisible, or have fewer examples than there are processes. Nobody gets an
    example twice; a process for which none is left gets a stand-in, which :func:`loss_weights` gives no weight.

    Args:
        order: of all examples.
        batch: examples of a batch, over all processes.
        rank: this process's number, from 0.
        count: how many processes there are.
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
    """What the mean loss of each batch of an update is to be multiplied with.

    The Trainer takes the mean over an update's batches, and the processes' gradients are averaged. With these weights
    the outcome is the mean over all that the update's loss counts, examples or tokens, however they are spread.

    Args:
        batches: of this process, with ``labels``, and ``input_ids`` where they are texts.
        stand_in: the last one does not count.
    """
    if len(batches) * distributed.count() == 1:
        return iter((1.0,))
    counted = torch.stack([_counted(batch) for batch in batches])
    if stand_in:
        counted[-1] = 0
    return iter(counted * (len(batches) * distributed.count()) / distributed.total(counted.sum()))


def _counted(batch: Mapping[str, Tensor]) -> Tensor:
    """How many losses the mean over a batch is of."""
    labels = batch["labels"]
    if "input_ids" in batch and labels.shape == batch["input_ids"].shape:
        return (labels[:, 1:] != IGNORED).sum()  # a causal model's first token is not predicted
    return torch.tensor(len(labels), device=labels.device)


class EpochSampler(Sampler[int]):
    """A permutation of the examples that depends on the seed and the epoch alone.

    Args:
        lengths: tokens of each example.
        batch: examples of an optimizer update, within which lengths are to be similar.
        group: whether to group by length.
        seed: the run's.
    """

    def __init__(self, lengths: Sequence[int], batch: int, group: bool, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch = batch
        self.group = group
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        stream = generator(self.seed, "order", self.epoch)
        if self.group:
            return iter(get_length_grouped_indices(self.lengths, self.batch, generator=stream))
        return iter(torch.randperm(len(self.lengths), generator=stream).tolist())


def lengths(split: Examples) -> list[int]:
    """The tokens of each text; vectors are all of one length.

    Raises:
        DataError: the examples come as a stream.
    """
    if isinstance(split, (datasets.IterableDataset, torch.utils.data.IterableDataset)):
        raise DataError(
            f"{type(split).__name__} is a stream without a length: expected a data set that knows its length, because "
            "epochs, their order and a resume are counted in examples; read it into a datasets.Dataset first. (With a "
            "Trainer of your own, ResampleCallback(unit='step') resamples on a stream)"
        )
    if not isinstance(split, datasets.Dataset):
        return [1] * len(split)  # type: ignore[arg-type]  # PyTorch's class for any data set declares no length
    return [len(ids) for ids in split["input_ids"]]


def by_length(split: Examples) -> Examples:
    """Texts in the order of their lengths, so that a batch needs little padding; vectors as they are."""
    if not isinstance(split, datasets.Dataset):
        return split
    return split.select(torch.argsort(torch.tensor(lengths(split)), stable=True).tolist())
