"""The Hugging Face Trainer of a run.

What differs from the stock Trainer, and why:

* the order of batches depends only on the run's seed and the epoch, so every method sees the same batches and a resumed
  run needs no replay of random numbers;
* the loss of an update is the mean over its examples, or its tokens, for any number of batches and processes
  (:mod:`rosa.training.batches`);
* checkpoints are small, verified, and refused for another backbone (:mod:`rosa.training.checkpoints`);
* a loss, gradient or weight that is not finite stops the run; the error names the step and the layer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from rosa.adapters.callback import checkpoint_folder, updates_per_epoch
from rosa.adapters.state import frozen_hash, rate_ratios, undecayed_names
from rosa.config import TrainConfig
from rosa.errors import CheckpointError, DivergedError, ProcessesError, StartOver, WriteError
from rosa.evaluation.scorer import Reduction, Scorer
from rosa.training.arguments import training_arguments
from rosa.training.batches import BatchShares, EpochSampler, Examples, by_length, lengths, loss_weights
from rosa.training.callbacks import CostCallback, EpochOrderCallback, ProgressCallback
from rosa.training.checkpoints import CheckpointCallback, keep_newest, load_weights, remove_checkpoints, save_weights
from rosa.training.costs import CostMeter
from rosa.training.finiteness import FinitenessWatch, describe_norms, first_bad_layer
from rosa.utils import distributed, files

WEIGHTS = "changed.safetensors"
PROGRESS = "progress.json"


class HarnessTrainer(Trainer):
    """The stock Trainer with its own order of batches, small checkpoints and a check for non-finite losses.

    Args:
        sampler: the order of the training examples.
        batch_size: number of examples in a batch, over all processes.
        costs: counts the examples and tokens of each batch.
        reduce: maps an evaluated batch's (logits, labels) to each example's summed loss and number of counted tokens,
            which are kept in place of the logits; None keeps the logits.
        arguments: the stock Trainer's arguments.

    Raises:
        ProcessesError: the stock Trainer's batch size, over all processes, differs from ``batch_size``.
    """

    def __init__(
        self,
        *,
        sampler: EpochSampler,
        batch_size: int,
        costs: CostCallback,
        reduce: Reduction | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        made = self.args.train_batch_size * distributed.count()
        if made != batch_size:
            raise ProcessesError(
                f"train.batch_size={batch_size}, but the Trainer would use batches of {made} ({distributed.count()} "
                f"processes with {self.args.n_gpu} devices each): expected one device per process"
            )
        self.sampler = sampler
        self.shares = BatchShares(sampler, batch_size, distributed.rank(), distributed.count())
        self.costs = costs
        self.reduce = reduce
        # Some models accept them but ignore their values; the loss weights below are right for every model.
        self.model_accepts_loss_kwargs = False
        self._weights: Iterator[Tensor | float] = iter(())
        self._loss_since_log = 0.0
        self._resumed: dict[str, Any] = {}
        self._frozen_hash: str | None = None
        self._watch: FinitenessWatch | None = None
        self.add_callback(WeightsCallback(self))

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train as the stock Trainer does, again where a callback asks for it.

        The progress bar is closed even on an error.
        """
        try:
            return super().train(*arguments, **options)
        except StartOver:
            self._forget_training()
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, ProgressCallback):
                    callback.close()
        return self.train()

    def _forget_training(self) -> None:
        """Reset the Trainer's state to that before training; the model's weights and the measured times stay."""
        distributed.wait_for_all()
        if distributed.is_main():
            remove_checkpoints(Path(str(self.args.output_dir)))
        distributed.wait_for_all()
        self.optimizer = None
        self._weights, self._resumed = iter(()), {}
        self.costs.start_over()
        set_seed(self.args.seed)

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Sampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        """The stock dataloader; with several processes, one that yields this process's share of every batch."""
        stock = super().get_train_dataloader()
        if distributed.count() == 1:
            return stock
        # The stock dataloader gives each process whole batches, and repeats examples to fill the last ones.
        mine = DataLoader(
            stock.dataset, batch_sampler=self.shares, collate_fn=stock.collate_fn, pin_memory=stock.pin_memory
        )
        return prepare_data_loader(
            mine, device=self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The stock Trainer's parameters (no biases, no normalization) without those that adapters exempt."""
        exempt = undecayed_names(model)
        return [name for name in super().get_decay_parameter_names(model) if name not in exempt]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock Trainer's optimizer, with separate groups for parameters that have a learning rate of their own."""
        present = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        bare = self.accelerator.unwrap_model(self.model)
        ratios = rate_ratios(bare)
        wanted = {id(p): ratios[name] for name, p in bare.named_parameters() if ratios.get(name, 1.0) != 1.0}
        if present or not wanted:
            return optimizer
        for group in list(optimizer.param_groups):
            apart: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                apart.setdefault(wanted.get(id(parameter), 1.0), []).append(parameter)
            group["params"] = apart.pop(1.0, [])
            for ratio, parameters in apart.items():
                optimizer.add_param_group({**group, "params": parameters, "lr": group["lr"] * ratio})
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The batches of an update; also computes their loss weights, counts their examples and times the wait."""
        start = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.costs.meter.loading(time.perf_counter() - start)
        an_epoch = updates_per_epoch(self.shares, self.args)
        stand_in = self.shares.ends_with_stand_in and (self.state.global_step + 1) % an_epoch == 0
        self._weights = loss_weights(batches, stand_in)
        for batch in batches[:-1] if stand_in else batches:
            self.costs.count(batch)
        return batches, None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's loss; in training multiplied by the batch's weight."""
        if self.reduce and not model.training:
            # The model's own loss would go through all logits a second time.
            sums = self.reduce(model(**{k: v for k, v in inputs.items() if k != "labels"}).logits, inputs["labels"])
            mean = sums[:, 0].sum() / sums[:, 1].sum()
            return (mean, {"loss": mean, "logits": sums}) if return_outputs else mean
        loss: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss * next(self._weights) if model.training else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluate one batch, with its loss averaged over this process's own examples.

        With several processes, the last batches are padded to equal size with repeated examples. The stock Trainer
        drops their predictions, but includes them in the mean loss.
        """
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if isinstance(logits, tuple):
            logits = logits[0]  # encoder-decoder classifiers also return the encoder's states
        loader = self.accelerator.gradient_state
        if distributed.count() > 1 and loader.end_of_dataloader and loader.remainder > 0:
            size = len(inputs["labels"])
            own = loader.remainder - distributed.rank() * size
            if 0 < own < size:
                kept = {name: value[:own] if isinstance(value, Tensor) else value for name, value in inputs.items()}
                loss = super().prediction_step(model, kept, True, ignore_keys)[0]
        return loss, logits, labels

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: no record uses the estimate, for which the stock Trainer iterates over the model at each step."""
        return 0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass, which also records whether the loss is finite.

        On a GPU this adds no synchronization: it is checked when the loss is logged, and before a checkpoint.
        """
        if self._resumed:
            # On a resume, the stock Trainer loses the losses since its last log entry, so its next mean would be wrong.
            self._tr_loss += self._resumed["loss_since_log"]
            self._globalstep_last_logged = self._resumed["logged_at"]
            self._resumed = {}
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.watch.loss(loss, self.state.global_step)
        # A scaled fp16 gradient may overflow: the scaler then skips the update. Accumulated ones are looked at once.
        if self.accelerator.scaler is None and self.accelerator.sync_gradients:
            self.watch.gradients(self.state.global_step)
        if loss.device.type == "cpu":
            self.check_finite(inputs)
        return loss

    @property
    def watch(self) -> FinitenessWatch:
        """The watch of the trained model, created at first use."""
        if self._watch is None:
            self._watch = FinitenessWatch(self.accelerator.unwrap_model(self.model), self.args.device)
        return self._watch

    def check_finite(self, inputs: Mapping[str, Any] | None = None, everywhere: bool = True) -> None:
        """Raise if a loss, gradient or trained weight has not been finite since the start.

        Args:
            inputs: the batch at hand; a loss that is not finite is then traced to a layer.
            everywhere: in any process, which all must call this at the same point.

        Raises:
            DivergedError: names the step, what was not finite, and the layers with the most conspicuous norms.
        """
        first = self.watch.first(everywhere)
        if first is None:
            return
        step, what = first
        model = self.accelerator.unwrap_model(self.model)
        layer = first_bad_layer(model, self._prepare_inputs(dict(inputs))) if inputs is not None else None
        where = f" (the output of {layer} is the first that is not)" if layer else ""
        raise DivergedError(
            f"{what} is not finite at step {step + 1}{where}: {describe_norms(model)}. "
            "A lower train.lr, or train.precision=fp32, may help"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the stock Trainer does, after :meth:`check_finite`."""
        self.check_finite()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._loss_since_log = float(distributed.total(self._tr_loss)) / distributed.count()  # in every process
        self.check_finite()
        with files.writing(checkpoint_folder(self.args, self.state), WriteError):
            if distributed.is_main():
                keep_newest(Path(str(self.args.output_dir)))
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:  # every process is asked, and all would write the same files
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.accelerator.unwrap_model(self.model), folder / WEIGHTS)
        progress = {
            "costs": self.costs.meter.state(),
            "loss_since_log": self._loss_since_log,
            "logged_at": self._globalstep_last_logged,
            "backbone": self._backbone(),
        }
        with files.writing(folder / PROGRESS, WriteError):
            (folder / PROGRESS).write_text(json.dumps(progress))

    def _backbone(self) -> str:
        """The hash of the frozen weights, computed once: training does not change them."""
        if self._frozen_hash is None:
            self._frozen_hash = frozen_hash(self.accelerator.unwrap_model(self.model))
        return self._frozen_hash

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        with files.reading(folder / PROGRESS):
            progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            backbone = progress["backbone"]
        # First, as another method's frozen weights differ too, by their names.
        load_weights(self.accelerator.unwrap_model(self.model) if model is None else model, folder / WEIGHTS)
        if backbone != self._backbone():
            raise CheckpointError(
                f"{folder}: its training started from other frozen weights: their sha256 was {backbone}, those of this "
                f"model have {self._backbone()}. Go on with the model that the run started from, or start over with "
                "train.force=true"
            )
        with files.reading(folder / PROGRESS):
            self.costs.meter.load(progress["costs"])
            self._resumed = {key: progress[key] for key in ("loss_since_log", "logged_at")}
        with files.reading(folder / TRAINER_STATE_NAME):
            state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
            if folder.name.rpartition("-")[2] != str(state.global_step) or not isinstance(state.train_batch_size, int):
                raise CheckpointError(f"{folder / TRAINER_STATE_NAME}: it is of step {state.global_step!r}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with files.reading(Path(str(checkpoint))):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with files.reading(Path(str(checkpoint))):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with files.reading(Path(str(checkpoint))):
            super()._load_rng_state(checkpoint)


class WeightsCallback(TrainerCallback):
    """Notes after each update whether the trained weights are finite."""

    def __init__(self, trainer: HarnessTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note it; on the CPU, stop at once. All processes hold the same weights."""
        self.trainer.watch.weights(state.global_step)
        if args.device.type == "cpu":
            self.trainer.check_finite(everywhere=False)


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """Model, data and scorer of a run. The examples' columns, labels included, are the model's inputs."""

    model: nn.Module
    """With a method attached."""
    tokenizer: PreTrainedTokenizerBase | None
    """None for tasks without texts. The Trainer aligns the model's special tokens with it; it is not saved."""
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Makes a batch of examples; texts are padded to the longest of the batch."""
    train: Examples
    evaluation: Mapping[str, Examples]
    """Evaluation splits by name, in scoring order."""
    scorer: Scorer


def compile_in_place(model: nn.Module, **options: Any) -> None:
    """Compile a model for batches of any shape, without a wrapper, which would rename the parameters.

    Args:
        model: with its method attached.
        options: of ``torch.compile``.
    """
    if getattr(model, "loss_type", "") is None:
        # GPT-2's class: transformers then takes this loss, but warns in each pass, which would split the graph in two.
        vars(model)["loss_type"] = "ForCausalLM"
    model.compile(dynamic=True, **options)


def build_trainer(
    parts: TrainerParts,
    config: TrainConfig,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    stop_requested: Callable[[], bool] = lambda: False,
) -> HarnessTrainer:
    """Build the Trainer of a run.

    Args:
        parts: model, data and scorer.
        config: with device, precision and learning rate resolved.
        seed: the run's seed.
        folder: where checkpoints are written.
        callbacks: called before those that measure costs and write checkpoints.
        stop_requested: see :class:`CheckpointCallback`.
    """
    sampler = EpochSampler(lengths(parts.train), config.batch_size * config.accumulation, config.group_by_length, seed)
    updates = config.epochs * config.updates_per_epoch(len(sampler))
    costs = CostCallback(CostMeter())
    if config.compile:
        compile_in_place(parts.model)
    trainer = HarnessTrainer(
        sampler=sampler,
        batch_size=config.batch_size,
        costs=costs,
        model=parts.model,
        args=training_arguments(config, folder, seed, updates),
        data_collator=parts.collator,
        train_dataset=parts.train,
        # Sorting reduces padding and does not change the metrics.
        eval_dataset={name: by_length(split) for name, split in parts.evaluation.items()},
        processing_class=parts.tokenizer,
        compute_metrics=parts.scorer,
        reduce=parts.scorer.reduce,
        callbacks=[
            EpochOrderCallback(sampler),
            *callbacks,
            costs,
            CheckpointCallback(config.save_steps, stop_requested),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every log entry as a dictionary
    return trainer
