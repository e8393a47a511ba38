"""A progress bar for one run: updates done, loss, learning rate, and a line for each evaluation and resample."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rosa.resampling import EVENT
from rosa.scores import written


class ProgressCallback(TrainerCallback):
    """Draws the bar on standard error.

    Args:
        split: the evaluation split whose score is printed.
        metric: the score.
    """

    def __init__(self, split: str, metric: str) -> None:
        self.split = split
        self.metric = metric
        self.bar: tqdm | None = None
        self._events = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where the run stands."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)
        self._events = len(state.log_history)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One update further; say so if the subspace has moved."""
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
        """Show loss and learning rate beside the bar, and the score of an evaluation above it."""
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
        if self.bar is not None:
            self.bar.close()
