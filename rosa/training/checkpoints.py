"""What is saved of a run, and when: small, self-contained, and never mistaken for whole when it is not.

A checkpoint holds what training changes (factors, ``W_f`` of resampled layers, head; everything for full fine-tuning)
instead of the whole model. It counts only once it is complete, and only then replaces the one before.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rosa.adapters.callback import updates_per_epoch
from rosa.adapters.modules import attachment
from rosa.adapters.state import changing_state, load_changing_state
from rosa.errors import AdapterError, InterruptedRun
from rosa.utils import distributed

COMPLETE = "complete"
"""Written last into a checkpoint's folder; one without it was cut short and is not used."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write what training changed, and by which method, to a safetensors file, atomically.

    Raises:
        OSError: the file cannot be written; an earlier one of that name is whole.
    """
    present = attachment(model)
    method = dataclasses.asdict(present.config) if present else {}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in changing_state(model).items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={"method": json.dumps(method, sort_keys=True)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote into a model with the same method attached.

    Raises:
        AdapterError: another method, other settings of it, another rank or another model.
    """
    present = attachment(model)
    expected = dataclasses.asdict(present.config) if present else {}
    with safe_open(path, framework="pt") as file:
        saved = json.loads((file.metadata() or {}).get("method", "{}"))
        if saved != expected:
            keys = sorted(key for key in saved.keys() | expected.keys() if saved.get(key) != expected.get(key))
            differences = ", ".join(f"{key}={saved.get(key)!r} (now {expected.get(key)!r})" for key in keys)
            raise AdapterError(
                f"{path} is a checkpoint of another method or rank: {differences}. "
                "Remove it, or start over with train.force=true"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    load_changing_state(model, tensors, str(path))


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; those cut short are removed."""
    complete = []
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if (checkpoint / COMPLETE).exists():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class CheckpointCallback(TrainerCallback):
    """Write a checkpoint at each epoch's end, every ``save_steps`` updates, and when asked to stop.

    Args:
        folder: where the checkpoints go.
        save_steps: 0 for epoch ends only.
        stop_requested: asked after every update; once true, a checkpoint is written and training stops. Every process
            asks at the same points, and must get the same answer.
    """

    def __init__(self, folder: Path, save_steps: int, stop_requested: Callable[[], bool]) -> None:
        self.folder = folder
        self.save_steps = save_steps
        self.stop_requested = stop_requested

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save within an epoch; an epoch's last update is saved at its end, after the evaluation."""
        if state.global_step % updates_per_epoch(kwargs["train_dataloader"], args) == 0:
            return
        if state.global_step >= state.max_steps:
            return
        due = bool(self.save_steps) and state.global_step % self.save_steps == 0
        control.should_save = due or self.stop_requested()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save at an epoch's end, but for the last one, after which nothing is left to resume."""
        control.should_save = state.global_step < state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Declare the new checkpoint complete, and only then remove the one before.

        Of several processes the first one does it, when each has written the state of its random numbers, which is all
        that the others write.

        Raises:
            InterruptedRun: a stop was requested.
        """
        distributed.wait_for_all()
        if distributed.is_main():
            newest = self.folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            (newest / COMPLETE).touch()
            for checkpoint in self.folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                if checkpoint != newest:
                    shutil.rmtree(checkpoint)
        if self.stop_requested():
            raise InterruptedRun(f"stopped at step {state.global_step} of {state.max_steps}; ask again to go on")


class BestWeightsCallback(TrainerCallback):
    """Keep the weights of the evaluation with the best score; the first of equals.

    Args:
        path: the safetensors file.
        key: the score's key in the log history, ``eval_<split>_<metric>``.
        lower_is_better: the score is an error.
    """

    def __init__(self, path: Path, key: str, lower_is_better: bool = False) -> None:
        self.path = path
        self.key = key
        self.lower_is_better = lower_is_better

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save if this evaluation beats every earlier one, those before a resume included."""
        if model is None or metrics is None or self.key not in metrics:
            return
        scores = [entry[self.key] for entry in state.log_history if self.key in entry]
        if best_index(scores, self.lower_is_better) == len(scores) - 1:
            save_weights(model, self.path)


def best_index(scores: Sequence[float], lower_is_better: bool = False) -> int:
    """The position of the best score, the first of equals; an undefined score (NaN) loses to every defined one."""
    sign = -1 if lower_is_better else 1
    return max(range(len(scores)), key=lambda i: (not math.isnan(scores[i]), sign * _or_zero(scores[i]), -i))


def _or_zero(score: float) -> float:
    return 0.0 if math.isnan(score) else score
