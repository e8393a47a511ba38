"""Save and load checkpoints and best weights.

A checkpoint holds what training changes (factors, ``W_f`` of resampled layers, head; everything for full fine-tuning)
instead of the whole model. It is used only if all of its files are as they were written
(:mod:`rosa.training.manifest`). The previous checkpoint is kept until the next one is about to be written, and is used
if the newest is incomplete.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rosa.adapters.callback import checkpoint_folder, updates_per_epoch
from rosa.adapters.modules import attachment
from rosa.adapters.state import changing_state, load_changing_state
from rosa.config.identity import default_of
from rosa.errors import AdapterError, CheckpointError, InterruptedRun, WriteError
from rosa.training import manifest
from rosa.utils import distributed, files

log = logging.getLogger(__name__)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the tensors that training changes and the method's configuration to a safetensors file, atomically.

    Raises:
        WriteError: the file cannot be written; an existing file of that name is unchanged.
    """
    present = attachment(model)
    method = dataclasses.asdict(present.config) if present else {}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in changing_state(model).items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with files.writing(path, WriteError):
        try:
            save_file(tensors, temporary, metadata={"method": json.dumps(method, sort_keys=True)})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file from :func:`save_weights` into a model with the same method attached.

    Raises:
        AdapterError: the file is of another method, method configuration, rank or model.
        CheckpointError: it cannot be read.
    """
    present = attachment(model)
    expected = dataclasses.asdict(present.config) if present else {}
    saved, tensors = _read_weights(path)
    if present and saved.get("name") == present.method:
        # Options that are newer than the file: as in a record, they had their default.
        saved = {option.name: default_of(option) for option in dataclasses.fields(present.config)} | saved
    if saved != expected:
        keys = sorted(key for key in saved.keys() | expected.keys() if saved.get(key) != expected.get(key))
        differences = ", ".join(f"{key}={saved.get(key)!r} (now {expected.get(key)!r})" for key in keys)
        raise AdapterError(
            f"{path} is a checkpoint of another method or rank: {differences}. "
            "Remove it, or start over with train.force=true"
        )
    load_changing_state(model, tensors, str(path))


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The method's configuration and the tensors of a file from :func:`save_weights`."""
    try:
        with safe_open(path, framework="pt") as file:
            method = json.loads((file.metadata() or {}).get("method", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable file of weights: {error}") from error
    if not isinstance(method, dict):
        raise CheckpointError(f"{path}: its method is {method!r}, expected the configuration of one")
    return method, tensors


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, None without one; incomplete ones are removed, with a warning each.

    Raises:
        CheckpointError: one of them cannot be read now, so it may be complete; it is not removed.
    """
    found = _by_age(folder)
    for number, checkpoint in enumerate(found):
        try:
            problem = manifest.problem(checkpoint)
        except OSError as error:
            raise _unreadable(checkpoint, error) from error
        if problem is None:
            return checkpoint
        before = f"trying {found[number + 1].name}" if number + 1 < len(found) else "starting over"
        log.warning("%s is torn (%s): %s", checkpoint, problem, before)
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def keep_newest(folder: Path) -> None:
    """Remove all checkpoints except the newest complete one, to make room for the next.

    If one of them cannot be read now, a warning is logged and none is removed: training can go on.
    """
    try:
        kept = find_checkpoint(folder)
    except CheckpointError as error:
        log.warning("older checkpoints are kept: %s", error)
        return
    for checkpoint in _by_age(folder):
        if checkpoint != kept:
            shutil.rmtree(checkpoint)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints."""
    for checkpoint in _by_age(folder):
        shutil.rmtree(checkpoint)


def _by_age(folder: Path) -> list[Path]:
    """The checkpoints in a folder, complete or not, newest first.

    Raises:
        CheckpointError: the folder cannot be listed.
    """
    steps = {}
    try:
        for entry in os.scandir(folder):
            number = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", entry.name, re.ASCII)
            if number and entry.is_dir():
                steps[folder / entry.name] = int(number[1])
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(steps, key=steps.__getitem__, reverse=True)


def _unreadable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder}: cannot be read ({error}); nothing was removed. Run it again once the files can be read, or start "
        "over with train.force=true"
    )


class CheckpointCallback(TrainerCallback):
    """Writes a checkpoint at each epoch's end, every ``save_steps`` updates, and before a requested stop.

    Args:
        save_steps: updates between checkpoints within an epoch; 0 for none.
        stop_requested: called after updates and saves; once it returns True, a checkpoint is written and training
            stops. Every process calls it at the same points, and must get the same result.
    """

    def __init__(self, save_steps: int, stop_requested: Callable[[], bool]) -> None:
        self.save_steps = save_steps
        self.stop_requested = stop_requested

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save within an epoch if due; after an epoch's last update, ``on_epoch_end`` saves."""
        if state.global_step % updates_per_epoch(kwargs["train_dataloader"], args) == 0:
            return
        if state.global_step >= state.max_steps:
            return
        due = bool(self.save_steps) and state.global_step % self.save_steps == 0
        control.should_save = due or self.stop_requested()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save at every epoch's end except the last."""
        control.should_save = state.global_step < state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the new checkpoint's manifest.

        The main process does this after every process has written the state of its random numbers, the only file that
        the others write.

        Raises:
            InterruptedRun: a stop was requested.
            WriteError: the manifest cannot be written.
        """
        distributed.wait_for_all()
        if distributed.is_main():
            folder = checkpoint_folder(args, state)
            with files.writing(folder, WriteError):
                manifest.seal(folder)
        if self.stop_requested():
            raise InterruptedRun(f"stopped at step {state.global_step} of {state.max_steps}; run it again to resume")


class BestWeightsCallback(TrainerCallback):
    """Saves the weights of the evaluation with the best score; of equal scores, the first.

    Args:
        path: the safetensors file to write.
        key: the score's key in the log history, ``eval_<split>_<metric>``.
        lower_is_better: whether the lowest score is the best.
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
        """Save if this evaluation's score beats all earlier ones, including those before a resume."""
        if model is None or metrics is None or self.key not in metrics:
            return
        scores = [entry[self.key] for entry in state.log_history if self.key in entry]
        if best_index(scores, self.lower_is_better) == len(scores) - 1:
            save_weights(model, self.path)


def best_index(scores: Sequence[float], lower_is_better: bool = False) -> int:
    """The index of the best score; of equal scores, the first. NaN is worse than every number."""
    sign = -1 if lower_is_better else 1
    return max(range(len(scores)), key=lambda i: (not math.isnan(scores[i]), sign * _or_zero(scores[i]), -i))


def _or_zero(score: float) -> float:
    return 0.0 if math.isnan(score) else score
