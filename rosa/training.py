"""The Hugging Face Trainer of a run: order of batches, small self-contained checkpoints, exact resume.

What differs from the stock Trainer, and why:

* the order of batches depends on the run's seed and the epoch alone, so every method sees the same batches and a
  resumed run needs no replay of random numbers;
* a checkpoint holds what training changes (factors, ``W_f`` of resampled layers, head; everything for full
  fine-tuning) instead of the whole model, counts only once it is complete, and replaces the one before;
* a loss that is not finite stops the run and names the step and the layers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rosa.adapters.base import AdapterError, attachment, changing_state, load_changing_state, undecayed_names
from rosa.config import TrainConfig
from rosa.costs import CostMeter, parameter_memory
from rosa.resampling import EVENT, updates_per_epoch
from rosa.seeding import derive, generator

WEIGHTS = "changed.safetensors"
PROGRESS = "progress.json"
COMPLETE = "complete"
"""Written last into a checkpoint's folder; one without it was cut short and is not used."""


class DivergedError(RuntimeError):
    """The training loss is not finite."""


class InterruptedRun(RuntimeError):  # noqa: N818 - an interruption is no error
    """Training stopped on request, after writing a checkpoint from which it goes on."""


# --- what is saved ---------------------------------------------------------------------------------------------------


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


# --- the order of batches --------------------------------------------------------------------------------------------


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


# --- the Trainer -----------------------------------------------------------------------------------------------------


class HarnessTrainer(Trainer):
    """See the module's docstring."""

    def __init__(self, *, sampler: EpochSampler, costs: CostCallback, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.sampler = sampler
        self.costs = costs
        self._resumed: dict[str, Any] = {}
        self._first_bad_step = torch.full((), torch.iinfo(torch.int64).max, device=self.args.device)

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Sampler:
        return self.sampler

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The Trainer's rule (no biases, no normalisation), less what adapters exempt."""
        exempt = undecayed_names(model)
        return [name for name in super().get_decay_parameter_names(model) if name not in exempt]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass, whose loss is watched.

        On a GPU the watch adds no synchronisation: it is read when the loss is logged anyway.
        """
        if self._resumed:
            # The Trainer forgets the losses since its last log line, and would log a mean of fewer.
            self._tr_loss += self._resumed["loss_since_log"]
            self._globalstep_last_logged = self._resumed["logged_at"]
            self._resumed = {}
        self.costs.count(inputs["input_ids"])
        loss = super().training_step(model, inputs, num_items_in_batch)
        step = torch.tensor(self.state.global_step, device=loss.device)
        candidate = torch.where(torch.isfinite(loss), torch.iinfo(torch.int64).max, step)
        self._first_bad_step = torch.minimum(self._first_bad_step, candidate)
        if loss.device.type == "cpu":
            self.check_finite()
        return loss

    def check_finite(self) -> None:
        """Stop if a loss since the start was not finite.

        Raises:
            DivergedError: with the step and the layers whose norms stand out.
        """
        step = int(self._first_bad_step)
        if step < torch.iinfo(torch.int64).max:
            raise DivergedError(
                f"the loss is not finite at step {step + 1}: {describe_norms(self.model)}. "
                "A lower train.lr, or train.precision=fp32, may help"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, after looking at the losses so far."""
        self.check_finite()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.accelerator.unwrap_model(self.model), folder / WEIGHTS)
        progress = {
            "costs": self.costs.meter.state(),
            "loss_since_log": float(self._tr_loss),
            "logged_at": self._globalstep_last_logged,
        }
        (folder / PROGRESS).write_text(json.dumps(progress))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        load_weights(self.model if model is None else model, folder / WEIGHTS)
        self._resumed = json.loads((folder / PROGRESS).read_text())
        self.costs.meter.load(self._resumed["costs"])


def describe_norms(model: nn.Module, most: int = 3) -> str:
    """The trainable parameters with a gradient or weight that is not finite, or else the largest gradients."""
    rows = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = float(parameter.grad.norm()) if parameter.grad is not None else 0.0
            rows.append((name, float(parameter.detach().norm()), gradient))
    broken = [row for row in rows if not all(map(_finite, row[1:]))]
    chosen = broken[:most] or sorted(rows, key=lambda row: -row[2])[:most]
    return "; ".join(
        f"{name}: weight norm {weight:.3g}, gradient norm {gradient:.3g}" for name, weight, gradient in chosen
    )


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


class CostCallback(TrainerCallback):
    """Feeds a cost meter from a Trainer's events."""

    def __init__(self, meter: CostMeter) -> None:
        self.meter = meter
        self.memory: dict[str, int] = {}
        """Bytes of weights, gradients and optimizer state, in an update while all three exist."""
        self._examples = 0
        self._tokens = 0

    def count(self, input_ids: Tensor) -> None:
        """Note a batch (examples, tokens) of the current update; its shape is known without asking the device."""
        self._examples += input_ids.shape[0]
        self._tokens += input_ids.numel()

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
        """An update has ended."""
        self.meter.step_end(self._examples, self._tokens)
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


class EpochOrderCallback(TrainerCallback):
    """Tell the sampler which epoch begins, also after a resume."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch from the number of updates done."""
        self.sampler.set_epoch(state.global_step // updates_per_epoch(kwargs["train_dataloader"], args))


class CheckpointCallback(TrainerCallback):
    """Write a checkpoint at each epoch's end, every ``save_steps`` updates, and when asked to stop.

    Args:
        folder: where the checkpoints go.
        save_steps: 0 for epoch ends only.
        stop_requested: asked after every update; once true, a checkpoint is written and training stops.
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

        Raises:
            InterruptedRun: a stop was requested.
        """
        newest = self.folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        (newest / COMPLETE).touch()
        for checkpoint in self.folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            if checkpoint != newest:
                shutil.rmtree(checkpoint)
        if self.stop_requested():
            raise InterruptedRun(f"stopped at step {state.global_step} of {state.max_steps}; ask again to go on")


class BestWeightsCallback(TrainerCallback):
    """Keep the weights of the evaluation with the highest score; the first of equals.

    Args:
        path: the safetensors file.
        key: the score's key in the log history, ``eval_<split>_<metric>``.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

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
        if best_index(scores) == len(scores) - 1:
            save_weights(model, self.path)


def best_index(scores: Sequence[float]) -> int:
    """The position of the highest score, the first of equals; an undefined score (NaN) loses to every defined one."""
    return max(
        range(len(scores)), key=lambda i: (scores[i] == scores[i], scores[i] if scores[i] == scores[i] else 0, -i)
    )


def precision_for(requested: str, device: str) -> str:
    """What ``train.precision=auto`` means on this device: ``bf16`` where the GPU computes it, ``fp32`` elsewhere."""
    if requested != "auto":
        return requested
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def device_for(requested: str) -> str:
    """``cuda`` where there is one and the CPU is not asked for.

    Raises:
        RuntimeError: ``train.device=cuda`` without a GPU.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise RuntimeError("train.device=cuda, but PyTorch sees no CUDA device; use train.device=cpu")
    return "cuda" if available and requested != "cpu" else "cpu"


def training_arguments(config: TrainConfig, folder: Path, seed: int, updates: int) -> TrainingArguments:
    """The Trainer's own settings.

    Args:
        config: with precision and learning rate resolved.
        folder: where checkpoints go.
        seed: the run's.
        updates: optimizer updates of all epochs.
    """
    shortened = 0 < config.max_steps < updates
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps if shortened else -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.evaluation_batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(config.schedule, config.schedule),
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_epsilon=config.epsilon,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        use_cpu=config.device == "cpu",
        seed=derive(seed, "dropout") % 2**32,
        eval_strategy="epoch",
        save_strategy="no",  # CheckpointCallback decides
        logging_strategy="steps",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # it hides a diverged loss, and synchronises every step
        disable_tqdm=True,
        report_to="none",
        label_names=["labels"],
        dataloader_pin_memory=config.device == "cuda",
    )


def build_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    train: datasets.Dataset,
    evaluation: dict[str, datasets.Dataset],
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    config: TrainConfig,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    meter: CostMeter,
    stop_requested: Callable[[], bool] = lambda: False,
) -> HarnessTrainer:
    """A Trainer for tokenized examples with ``input_ids`` and ``label``.

    Args:
        model: with a method attached.
        tokenizer: saved nowhere; the Trainer aligns its special tokens with the model.
        collator: pads a batch to its own longest example.
        train: the training split.
        evaluation: evaluation splits by name.
        compute_metrics: of logits and labels.
        config: with device, precision and learning rate resolved.
        seed: the run's.
        folder: where checkpoints go.
        callbacks: more of them, called before the meter's and the checkpoint's.
        meter: measures steps, resamples and evaluations.
        stop_requested: see :class:`CheckpointCallback`.
    """
    lengths = [len(ids) for ids in train["input_ids"]]
    sampler = EpochSampler(lengths, config.batch_size * config.accumulation, config.group_by_length, seed)
    batches = -(-len(train) // config.batch_size)
    updates = config.epochs * -(-batches // config.accumulation)
    costs = CostCallback(meter)
    trainer = HarnessTrainer(
        sampler=sampler,
        costs=costs,
        model=model,
        args=training_arguments(config, folder, seed, updates),
        data_collator=collator,
        train_dataset=train,
        # Metrics do not depend on the order, and padding does.
        eval_dataset={name: by_length(split) for name, split in evaluation.items()},
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        callbacks=[
            EpochOrderCallback(sampler),
            *callbacks,
            costs,
            CheckpointCallback(folder, config.save_steps, stop_requested),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every log entry as a dictionary
    return trainer


def by_length(split: datasets.Dataset) -> datasets.Dataset:
    """The examples in the order of their lengths, so that a batch needs little padding."""
    lengths = torch.tensor([len(ids) for ids in split["input_ids"]])
    return split.select(torch.argsort(lengths, stable=True).tolist())
