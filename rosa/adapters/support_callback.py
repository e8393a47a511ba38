"""A callback that chooses the support of sparse parts during training, for any Hugging Face Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rosa.adapters import support
from rosa.adapters.callback import checkpoint_folder
from rosa.adapters.collect import Collector
from rosa.adapters.modules import adding, attachment_of, refuse_flat_shards
from rosa.adapters.optimizer_state import forget, forget_all, require_trains
from rosa.adapters.state import changing_state, load_changing_state
from rosa.errors import AdapterError, CheckpointError, StartOver, WriteError
from rosa.utils import files

PENDING = "support_pending.safetensors"
"""The file in a checkpoint before the support is chosen: the state to go back to, and the scores so far."""

SCHEDULE = ("schedule", "warmup_steps", "restart", "score", "collect_steps")
"""The options of the configuration that the callback goes by."""


class SupportCallback(TrainerCallback):
    """Choose the support of RoSA's sparse parts, by the schedule given to ``rosa.attach``.

    * ``warmup``: after ``warmup_steps`` updates, the gradients of ``collect_steps`` updates are scored; the sparse
      parts train from the next update on.
    * ``joint`` and ``sparse_only``: the first ``collect_steps`` updates are scored and then undone.
    * ``warmup`` with ``restart``: as ``warmup``, and all of it is undone.

    Args:
        folder: where ``support.safetensors`` is written once it is chosen; None for nowhere.
        start_over: how updates are undone. True raises :class:`rosa.errors.StartOver` in the Trainer's ``train``, whose
            caller starts the training again with all of its updates. False, for a stock Trainer, resets model and
            optimizer to the start and continues with the remaining updates.
    """

    def __init__(self, folder: Path | None = None, start_over: bool = False) -> None:
        self.folder = folder
        self.start_over = start_over
        self._collector: Collector | None = None
        self._initial: dict[str, Tensor] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepare the choice, unless the support is known: read from a file, or chosen before a resume.

        Raises:
            AdapterError: the model has no sparse part, the Trainer has put it under FSDP1 or ZeRO-3, or its optimizer
                does not train the adapters' factors.
            ConfigError: the training is over before the support is chosen.
            CheckpointError: what a checkpoint holds of an interrupted choice cannot be read, or is of another model.
        """
        present = None if model is None else attachment_of(model, support.supported, SCHEDULE)
        if model is None or present is None:
            call = adding(model, "RobustConfig")
            raise AdapterError(f"SupportCallback: the model has no adapter of rosa; call {call} first")
        if not support.supported(model):
            raise AdapterError(
                f"SupportCallback: {present.method} has no sparse part here; leave it out, or adapt a plain model by "
                f"{adding(model, 'RobustConfig')}"
            )
        refuse_flat_shards(model)
        if optimizer is not None:
            _warn_of_rate(model, optimizer, args)
        self._config = config = present.config
        self._warmup = config.warmup_steps if config.schedule == "warmup" else 0
        if support.chosen(model):
            self._collector = None
            self._write(model, state)
            return
        if optimizer is not None:
            require_trains(optimizer, support.supported(model))
        config.check_choice(state.max_steps, present.prefix)
        self._collector = Collector(support.supported(model), config.score)
        self._initial = {}
        if state.global_step:
            self._load(model, args, state)
        elif self._undoes:
            self._initial = {name: tensor.clone() for name, tensor in changing_state(model).items()}
        self._collect_if_due(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to collect gradients once it is due."""
        self._collect_if_due(state)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Score the gradients of an update; after the last, choose the support.

        Raises:
            StartOver: with ``start_over``, the training is to start again.
        """
        collector = self._collector
        if collector is None or state.global_step < self._warmup or model is None:
            return
        collector.end_update()
        if collector.updates < self._config.collect_steps:
            return
        if self._undoes:
            load_changing_state(model, self._initial, "the state at the start")
        support.choose(model, collector.scores)
        collector.stop()
        self._collector, self._initial = None, {}
        if self._undoes and self.start_over:
            raise StartOver(f"the support was chosen in update {state.global_step + 1}")
        self._forget(model, optimizer)
        self._write(model, state)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Undo an update of a first pass, which is made only to score gradients."""
        if self._collector is not None and self._config.schedule != "warmup" and model is not None:
            load_changing_state(model, self._initial, "the state at the start")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Suppress the logging of updates that will be undone."""
        if self._collector is not None and self._undoes and self.start_over:
            control.should_log = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Suppress the evaluation and logging of updates that will be undone."""
        if self._collector is not None and self._undoes and self.start_over:
            control.should_log = control.should_evaluate = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the state of the choice in the checkpoint, for a resume."""
        folder = checkpoint_folder(args, state)
        if self._collector is None or not state.is_world_process_zero or not folder.is_dir():
            return
        tensors = {f"initial {name}": tensor.contiguous().cpu() for name, tensor in self._initial.items()}
        tensors |= {f"score {name}": tensor.contiguous().cpu() for name, tensor in self._collector.scores.items()}
        tensors["updates"] = torch.tensor(self._collector.updates)
        with files.writing(folder / PENDING, WriteError):
            save_file(tensors, folder / PENDING)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse to end without a support; a training that was stopped early can be resumed, and is only warned of.

        Raises:
            AdapterError: no ``collect_steps`` updates in a row had finite gradients.
        """
        if self._collector is None:
            return
        self._collector.stop()
        if state.global_step < state.max_steps:
            warnings.warn(
                f"the training was stopped at update {state.global_step} of {state.max_steps}, before the support was "
                "chosen: the sparse parts have no effect yet; resume it from a checkpoint",
                stacklevel=2,
            )
        else:
            raise AdapterError(
                f"the training ended before the support was chosen: gradients were not finite too often to collect "
                f"collect_steps={self._config.collect_steps} updates in a row"
            )

    @property
    def _undoes(self) -> bool:
        """Whether the updates before the choice are undone."""
        return self._config.schedule != "warmup" or bool(self._config.restart)

    def _collect_if_due(self, state: TrainerState) -> None:
        if self._collector is not None and state.global_step >= self._warmup:
            self._collector.start()

    def _forget(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        """Clear the optimizer's state of reset parameters, and the gradients that this update must not apply.

        Those are the sparse values', and after a warm-up that is undone all: they are of the state after it.
        """
        for adapter in support.supported(model).values():
            values = adapter.factors()["values"]
            values.grad = None
            if optimizer is not None:
                forget(optimizer, values)
        if self._config.restart:
            model.zero_grad()
        if optimizer is not None and self._undoes:
            forget_all(optimizer)

    def _write(self, model: nn.Module, state: TrainerState) -> None:
        if self.folder is not None and state.is_world_process_zero:
            support.write(model, self.folder / support.FILE)

    def _load(self, model: nn.Module, args: TrainingArguments, state: TrainerState) -> None:
        """Go on with a choice that a checkpoint interrupted.

        Raises:
            CheckpointError: what was saved of it cannot be read, or is of another model.
        """
        assert self._collector is not None
        path = checkpoint_folder(args, state) / PENDING
        with files.reading(path):
            saved = load_file(path)
            updates = int(saved.pop("updates"))
            parts: dict[str, dict[str, Tensor]] = {"initial": {}, "score": {}}
            for key, tensor in saved.items():
                part, _, name = key.partition(" ")
                parts[part][name] = tensor
            undone = _shapes(changing_state(model)) if self._undoes else {}
            scored = {name: adapter.shape for name, adapter in support.supported(model).items()} if updates else {}
            if (_shapes(parts["initial"]), _shapes(parts["score"])) != (undone, scored):
                raise CheckpointError(
                    f"{path}: not a checkpoint of this run: it is of another model or schedule. Remove it, or start "
                    "over with train.force=true"
                )
        self._initial = parts["initial"]
        if updates:
            self._collector.load(parts["score"], updates)


def _warn_of_rate(model: nn.Module, optimizer: torch.optim.Optimizer, args: TrainingArguments) -> None:
    """Warn if sparse values have the learning rate of the low-rank part, or without one the run's, not a share of it.

    A scheduler keeps in ``initial_lr`` the rate that it changes, by its warm-up to 0 at the start.
    """
    rates: dict[int, float] = {}
    for group in optimizer.param_groups:
        rates |= dict.fromkeys(map(id, group["params"]), float(group.get("initial_lr", group["lr"])))
    for name, adapter in support.supported(model).items():
        ratio, factors = adapter.rate_ratios().get("values", 1.0), adapter.factors()
        rate = rates.get(id(factors.pop("values")))
        others = {rates[id(factor)] for factor in factors.values() if id(factor) in rates}
        if rate is not None and ratio != 1 and rate in (others or {args.learning_rate}):
            warnings.warn(
                f"lr_sparse={ratio:.3g} has no effect: the optimizer trains {name}.values at the learning rate of all, "
                f"{rate:.3g}. Put the sparse values in a group of the optimizer with {ratio:.3g} times that "
                "(rosa.adapters.state.rate_ratios has their names), or ask for lr_sparse=1",
                stacklevel=2,
            )
            return


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
