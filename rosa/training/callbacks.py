"""Callbacks that every run has: the order of batches, and what steps cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from rosa import processes
from rosa.costs import CostMeter, parameter_memory
from rosa.resampling import EVENT, updates_per_epoch
from rosa.seeding import generator


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


class EpochOrderCallback(TrainerCallback):
    """Tell the sampler which epoch begins, also after a resume."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch from the number of updates done."""
        self.sampler.set_epoch(state.global_step // updates_per_epoch(kwargs["train_dataloader"], args))


class CostCallback(TrainerCallback):
    """Feeds a cost meter from a Trainer's events."""

    def __init__(self, meter: CostMeter) -> None:
        self.meter = meter
        self.memory: dict[str, int] = {}
        """Bytes of weights, gradients and optimizer state, in an update while all three exist."""
        self._examples = 0
        self._tokens = 0

    def count(self, batch: Mapping[str, Tensor]) -> None:
        """Note this process's part of a batch of the current update; shapes are known without asking the device.

        Args:
            batch: ``labels``, one for each example, and ``input_ids`` (examples, tokens) where they are texts.
        """
        self._examples += batch["labels"].shape[0]
        if "input_ids" in batch:
            self._tokens += batch["input_ids"].numel()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.meter.start()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An update begins; a resample may have come just before it."""
        latest = state.log_history[-1] if state.log_history else {}
        if EVENT in latest and latest["step"] == state.global_step:
            self.meter.resample(latest["resample_seconds"])
        self.meter.step_begin()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look once at what is in memory between the optimizer's update and the clearing of the gradients."""
        if not self.memory:
            self.memory = parameter_memory(kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An update has ended, in all processes."""
        examples, tokens = processes.total(torch.tensor([self._examples, self._tokens])).tolist()
        self.meter.step_end(examples, tokens)
        self._examples = self._tokens = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """An evaluation of one split has ended."""
        for key, seconds in (metrics or {}).items():
            if key.endswith("_runtime"):
                self.meter.evaluation(seconds)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writing a checkpoint is no part of the next step."""
        self.meter.pause()
