"""Trainer callbacks: the epoch of the sampler, measured costs, and the progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rosa.adapters.callback import updates_per_epoch
from rosa.training.batches import EpochSampler
from rosa.training.costs import CostMeter, memory_above_baseline, parameter_memory
from rosa.utils import distributed
from rosa.utils.formatting import written
from rosa.utils.names import EVENT


class EpochOrderCallback(TrainerCallback):
    """Sets the sampler's epoch, also after a resume."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Derive the epoch from the number of updates done."""
        self.sampler.set_epoch(state.global_step // updates_per_epoch(kwargs["train_dataloader"], args))


class CostCallback(TrainerCallback):
    """Passes the Trainer's events to a cost meter."""

    def __init__(self, meter: CostMeter) -> None:
        self.meter = meter
        self.memory: dict[str, int] = {}
        """:func:`parameter_memory` in bytes, measured in the first update while gradients exist; empty before."""
        self._examples = 0
        self._tokens = 0

    def start_over(self) -> None:
        """Forget the updates so far; the time that they took still counts."""
        self.meter.load({**CostMeter().state(), "seconds": self.meter.state()["seconds"]})
        self._examples = self._tokens = 0

    def count(self, batch: Mapping[str, Tensor]) -> None:
        """Count the examples and tokens of this process's batch; reads only shapes, so the GPU is not synchronized.

        Args:
            batch: ``labels``, one row for each example, and for texts ``input_ids`` (examples, tokens).
        """
        self._examples += batch["labels"].shape[0]
        if "input_ids" in batch:
            self._tokens += batch["input_ids"].numel()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the meter."""
        self.meter.start()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start an update; pass on the duration of a resample directly before it."""
        latest = state.log_history[-1] if state.log_history else {}
        if EVENT in latest and latest["step"] == state.global_step:
            self.meter.resample(latest["resample_seconds"])
        self.meter.step_begin()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the parameters' memory once, after an optimizer update and before ``zero_grad``."""
        if not self.memory:
            self.memory = parameter_memory(kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End an update, with its examples and tokens summed over all processes."""
        examples, tokens = distributed.total(torch.tensor([self._examples, self._tokens])).tolist()
        self.meter.step_end(examples, tokens)
        self._examples = self._tokens = 0
        above = memory_above_baseline(args.device)
        if above is not None:
            self.meter.memory(above)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Pass on the duration of a split's evaluation."""
        for key, seconds in (metrics or {}).items():
            if key.endswith("_runtime"):
                self.meter.evaluation(seconds)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Exclude the writing of a checkpoint from the next step's time."""
        self.meter.pause()


class ProgressCallback(TrainerCallback):
    """A progress bar on standard error.

    Args:
        split: the evaluation split whose score is printed.
        metric: the name of the score.
    """

    def __init__(self, split: str, metric: str) -> None:
        self.split = split
        self.metric = metric
        self.bar: tqdm | None = None
        self._events = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the current step, which is not 0 after a resume."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)
        self._events = len(state.log_history)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar by one update; print a line for each resample."""
        if self.bar is None:
            return
        for entry in state.log_history[self._events :]:
            if EVENT in entry:
                self.bar.write(
                    f"step {entry['step']}: resampled {entry[EVENT]} layers in {entry['resample_seconds']:.2f} s"
                )
        self._events = len(state.log_history)
        self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss and learning rate in the bar; print an evaluation's score above it."""
        if self.bar is None or logs is None:
            return
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", lr=f"{logs['learning_rate']:.1e}")
        score = logs.get(f"eval_{self.split}_{self.metric}")
        if score is not None:
            self.bar.write(f"epoch {state.epoch:.4g}: {self.metric} ({self.split}) {written(self.metric, score)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar; also called when training raises an error, for which there is no event."""
        if self.bar is not None:
            self.bar.close()
