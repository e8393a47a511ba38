"""A callback that resamples during training, for any Hugging Face Trainer."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rosa.adapters import diagnostics, subspace_start
from rosa.adapters.base import ResampledAdapter
from rosa.adapters.modules import (
    ATTRIBUTE,
    Attachment,
    adapters,
    adding,
    attachment,
    attachment_of,
    attachments,
    refuse_flat_shards,
)
from rosa.adapters.optimizer_state import require_trains
from rosa.adapters.resampling import resample, resampled
from rosa.adapters.rewarming import Rewarming
from rosa.adapters.state import undecayed_names
from rosa.config.checks import of_kind
from rosa.errors import AdapterError, ConfigError
from rosa.utils.names import EVENT, MOVED
from rosa.utils.seeding import generator


def updates_per_epoch(train_dataloader: Any, args: TrainingArguments) -> int:
    """Optimizer updates in one epoch of a Trainer.

    Raises:
        AdapterError: the data has no length, as that of an ``IterableDataset``.
    """
    try:
        batches = len(train_dataloader)
    except TypeError as error:
        raise AdapterError(
            "unit=epoch: the training data is a stream without a length, so its epochs cannot be counted in updates; "
            "use unit=step (RosaConfig(every=..., unit='step') or ResampleCallback(every=..., unit='step'))"
        ) from error
    return max(math.ceil(batches / args.gradient_accumulation_steps), 1)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of a Trainer's checkpoint at the present update; it exists only if one was written."""
    return Path(str(args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


class ResampleCallback(TrainerCallback):
    """Resample after every ``every`` epochs or steps, before the next update.

    The number of updates done decides when to resample and, with the seed, derives each draw's own random stream, so a
    resumed training resamples as an uninterrupted one does without saved state. (The file in a checkpoint,
    :mod:`rosa.adapters.subspace_start`, only serves the logged norms.)

    Args:
        every: units between two resamples, 0 for never; by default as in the config given to ``rosa.attach``.
        unit: ``epoch`` or ``step``; by default as in that config.
        rewarm_steps: updates over which the learning rate of A and B rises linearly after a resample, multiplied by the
            Trainer's own schedule; by default as in that config.
        seed: seed of the draws; by default the Trainer's own (``args.seed``).
    """

    def __init__(
        self,
        every: int | None = None,
        unit: str | None = None,
        rewarm_steps: int | None = None,
        seed: int | None = None,
    ) -> None:
        for name, value in (("every", every), ("rewarm_steps", rewarm_steps)):
            if value is not None and (not of_kind(value, "int") or value < 0):
                raise ConfigError(f"{name}={value!r}: expected a whole number of at least 0")
        if seed is not None and not of_kind(seed, "int"):
            raise ConfigError(f"seed={seed!r}: expected a whole number")
        if unit not in (None, "epoch", "step"):
            raise ConfigError(f"unit={unit!r}: expected 'epoch' or 'step'")
        self.every = every
        self.unit = unit
        self.rewarm_steps = rewarm_steps
        self.seed = seed
        self._start: diagnostics.LayerFactors | None = None
        self._end: dict[str, Any] | None = None
        """The log entry of the last subspace, if the Trainer replaces the weights before it calls ``on_train_end``."""
        self._rewarming = Rewarming()
        self._found: tuple[nn.Module, list[tuple[nn.Module, Attachment]], Attachment] | None = None
        """The model of the last update, its adapted parts, and the attachment whose schedule holds: a search for them
        walks over all modules, which in each update of a small model would take a good part of the time."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the factors at the start of the current subspace; on a resume, read them from the checkpoint.

        Raises:
            AdapterError: the Trainer has put the model under FSDP1 or ZeRO-3, or its optimizer does not train the
                factors that are to be resampled.
            CheckpointError: they cannot be read, or are of other layers.
        """
        self._end = self._found = None
        if model is not None:
            refuse_flat_shards(model)
            found = resampled(model)
            if found and optimizer is not None and self._option(self._present(model), "every"):
                require_trains(optimizer, found)  # now, and not after the epochs before the first resample
            if optimizer is not None:
                _warn_of_decay(model, optimizer)
        if state.global_step:
            saved = checkpoint_folder(args, state) / subspace_start.FILE
            self._start = subspace_start.read(saved, model) if saved.is_file() else None
        elif model is not None:
            self._start = diagnostics.factors_of(model)

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
        """Resample if it is due, and append an entry to the log history.

        Raises:
            AdapterError: the Trainer does not pass model and optimizer, or the model has nothing to resample.
        """
        if model is None or optimizer is None:
            raise AdapterError("ResampleCallback needs a Trainer that passes its model and optimizer to callbacks")
        period = self._period(model, train_dataloader, args)
        if not period or not state.global_step or state.global_step % period:
            return
        event = self._subspace_end(model, state)
        start = time.perf_counter()
        stream = generator(args.seed if self.seed is None else self.seed, "resample", state.global_step)
        layers = resample(model, generator=stream, optimizer=optimizer)
        _synchronize(model)  # so that the measured time includes the resample's kernels
        event[EVENT] = len(layers)
        event["resample_seconds"] = time.perf_counter() - start
        event["factorization_seconds"] = [_short(seconds) for seconds in layers.values()]
        visited = diagnostics.visited_share(model)
        if visited:
            event["visited_share"] = sum(visited.values()) / len(visited)
        state.log_history.append(event)
        self._start = diagnostics.factors_of(model)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """While rewarming, store the factors before the update.

        Raises:
            ConfigError: the next resample would cut the rewarming off.
        """
        if model is None or (self._known(model) is None and attachment(model) is None):
            return
        asked = self._option(self._present(model), "rewarm_steps")
        period = self._period(model, train_dataloader, args) if asked else 0
        if 0 < period <= asked:
            raise ConfigError(f"rewarm_steps={asked}: expected fewer updates than the {period} between two resamples")
        if not period or state.global_step < period:
            return
        since = state.global_step % period
        if since < asked:
            self._rewarming.before_update(model, since, asked)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """While rewarming, undo a part of the update."""
        self._rewarming.after_update()

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Compute the norms before ``load_best_model_at_end`` puts the factors of another subspace into the model."""
        if model is not None and args.load_best_model_at_end:
            self._end = self._subspace_end(model, state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the factors at the start of the current subspace in the checkpoint."""
        folder = checkpoint_folder(args, state)
        if self._start is not None and state.is_world_process_zero and folder.is_dir():
            subspace_start.write(self._start, folder / subspace_start.FILE)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Append the last subspace's norms to the log history."""
        if model is not None:
            state.log_history.append(self._end or self._subspace_end(model, state))
        self._found = None  # it would keep the model in memory as long as the callback

    def _subspace_end(self, model: nn.Module, state: TrainerState) -> dict[str, Any]:
        event: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch}
        if self._start is not None:
            norms = diagnostics.moved(self._start, diagnostics.factors_of(model))
            event[MOVED] = [_short(norm) for norm in norms.values()]
        return event

    def _period(self, model: nn.Module, train_dataloader: Any, args: TrainingArguments) -> int:
        """Updates between two resamples, 0 for never.

        Raises:
            AdapterError: the model has nothing to resample, its parts differ in when, or ``every`` counts epochs of
                data without a length.
        """
        present = self._present(model)
        every, unit = (self._option(present, option) for option in ("every", "unit"))
        if not every:
            return 0  # also where epochs cannot be counted
        return int(every * (updates_per_epoch(train_dataloader, args) if unit == "epoch" else 1))

    def _option(self, present: Attachment, name: str) -> Any:
        own = getattr(self, name)
        return getattr(present.config, name) if own is None else own

    def _known(self, model: nn.Module) -> Attachment | None:
        """The attachment that was found in an earlier update, if this model still has the same ones."""
        if self._found is None:
            return None
        searched, parts, present = self._found
        same = searched is model and all(vars(part).get(ATTRIBUTE) is own for part, own in parts)
        return present if same else None

    def _present(self, model: nn.Module) -> Attachment:
        known = self._known(model)
        if known is not None:
            return known
        present = attachment_of(
            model, resampled, [name for name in ("every", "unit", "rewarm_steps") if getattr(self, name) is None]
        )
        if present is None:
            call = adding(model, "RosaConfig")
            raise AdapterError(f"ResampleCallback: the model has no adapter of rosa; call {call} first")
        if not any(isinstance(adapter, ResampledAdapter) for _, adapter in adapters(model)):
            raise AdapterError(
                f"ResampleCallback: {present.method} has nothing to resample; leave it out, or adapt a plain model by "
                f"{adding(model, 'RosaConfig')}"
            )
        self._found = model, list(attachments(model)), present
        return present


def _synchronize(model: nn.Module) -> None:
    """Wait for the GPUs that hold factors; without one, PyTorch's CUDA stays untouched."""
    devices = {factor.device for adapter in resampled(model).values() for factor in adapter.factors().values()}
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _warn_of_decay(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Warn if the optimizer decays factors that hold a part of the pretrained weights."""
    parameters = dict(model.named_parameters())
    exempt = {id(parameters[name]): name for name in sorted(undecayed_names(model)) if name in parameters}
    for group in optimizer.param_groups:
        decayed = [exempt[id(parameter)] for parameter in group["params"] if id(parameter) in exempt]
        if decayed and group.get("weight_decay"):
            warnings.warn(
                f"weight_decay={group['weight_decay']} pulls {decayed[0]} and {len(decayed) - 1} more factors towards "
                "zero, and with them the part of the pretrained weights that they hold: leave weight_decay at 0, or "
                "put them in a group of the optimizer without it (rosa.adapters.undecayed_names has their names)",
                stacklevel=2,
            )


def _short(value: float) -> float:
    """Round to four significant digits, because logs hold one number for each layer and resample."""
    return float(f"{value:.4g}")
