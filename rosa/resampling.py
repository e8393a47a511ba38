"""When to resample: a callback for any Hugging Face Trainer."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rosa.adapters.base import AdapterError, ResampledAdapter, adapters, attachment, resample
from rosa.seeding import generator

EVENT = "resample_layers"
"""The key that marks a resample in a Trainer's log history."""


def reset_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Clear the optimizer's state, step count included, of every factor whose adapter asks for it.

    Returns:
        How many parameters had a state.
    """
    count = 0
    for _, adapter in adapters(model):
        if isinstance(adapter, ResampledAdapter) and adapter.resets_optimizer():
            for factor in adapter.factors().values():
                count += optimizer.state.pop(factor, None) is not None
    return count


def updates_per_epoch(train_dataloader: Any, args: TrainingArguments) -> int:
    """Optimizer updates in one epoch of a Trainer."""
    return max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)


class ResampleCallback(TrainerCallback):
    """Resample before the first update of every ``every``-th epoch or step but the first.

    What is due follows from the number of updates done, and each draw has a stream of its own derived from the seed and
    that number: a resumed training resamples as the uninterrupted one does, and nothing needs to be saved for it.

    Args:
        every: units between two resamples, 0 for never; by default as in the config given to ``rosa.attach``.
        unit: ``epoch`` or ``step``; by default as in that config.
        seed: of the draws.
    """

    def __init__(self, every: int | None = None, unit: str | None = None, seed: int = 0) -> None:
        if every is not None and every < 0:
            raise ValueError(f"every={every}: expected a whole number of at least 0")
        if unit not in (None, "epoch", "step"):
            raise ValueError(f"unit={unit!r}: expected 'epoch' or 'step'")
        self.every = every
        self.unit = unit
        self.seed = seed

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Resample where one is due, and note it in the log history."""
        if model is None or optimizer is None:
            raise AdapterError("ResampleCallback needs a Trainer that passes its model and optimizer to callbacks")
        period = self._period(model, train_dataloader, args)
        if not period or not state.global_step or state.global_step % period:
            return
        start = time.perf_counter()
        layers = resample(model, generator=generator(self.seed, "resample", state.global_step))
        cleared = reset_optimizer_state(model, optimizer)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # once a resample, so that its time is its own
        event = {
            "step": state.global_step,
            "epoch": state.epoch,
            EVENT: layers,
            "resample_seconds": time.perf_counter() - start,
            "resample_cleared_states": cleared,
        }
        state.log_history.append(event)

    def _period(self, model: nn.Module, train_dataloader: Any, args: TrainingArguments) -> int:
        """Updates between two resamples."""
        present = attachment(model)
        if present is None:
            raise AdapterError("ResampleCallback: the model has no adapter; call rosa.attach(model, ...) first")
        if not any(isinstance(adapter, ResampledAdapter) for _, adapter in adapters(model)):
            raise AdapterError(f"ResampleCallback: {present.method} has nothing to resample; attach RosaConfig instead")
        every = present.config.every if self.every is None else self.every
        unit = present.config.unit if self.unit is None else self.unit
        return every * (updates_per_epoch(train_dataloader, args) if unit == "epoch" else 1)
