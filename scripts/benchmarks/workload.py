"""The input of every benchmark: one model, CoLA's training rows, and their batches as in training."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks import BenchmarkError
from rosa import data, models
from rosa.config import Config, DataConfig, ModelConfig, from_hydra, register
from rosa.data.collator import PaddingCollator
from rosa.models import length_limit
from rosa.run import build, mini_model
from rosa.run.device import resolve_device
from rosa.training.batches import EpochSampler
from rosa.utils.console import silence_transformers

Batch = dict[str, Tensor]
Build = Callable[[Config], PreTrainedModel]
"""Makes the plain model that a run of a resolved configuration would have."""

COLA_ROWS = 8551
"""Number of training rows of the real CoLA, and of the generated text that replaces it."""


def configure(conf: Path, model: str, data_dir: Path | None, device: str, batch_size: int) -> Config:
    """A run's configuration, from the same files as training's.

    Args:
        conf: the folder of the configuration groups.
        model: a name under ``conf/model``, or a folder that ``save_pretrained`` wrote.
        data_dir: the folder that holds the real ``CoLA``; None for generated text.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch_size: examples in a step.

    Raises:
        BenchmarkError: an unknown model.
        ConfigError: a value out of range.
    """
    names = sorted(path.stem for path in (conf / "model").glob("*.yaml"))
    own_folder = model not in names
    if own_folder and not Path(model).is_dir():
        raise BenchmarkError(f"--model {model}: neither one of {', '.join(names)} nor a folder of a saved model")
    register()
    chosen = "minilm" if own_folder else model
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        config = from_hydra(compose("config", overrides=["task=cola", f"model={chosen}", "data=mini", "logger=none"]))
    if own_folder:
        config = dataclasses.replace(config, model=ModelConfig(Path(model).resolve().name, "folder", model))
    source = (
        DataConfig(source="local", dir=str(data_dir))
        if data_dir is not None
        else dataclasses.replace(config.data, train_size=COLA_ROWS)
    )
    train = dataclasses.replace(config.train, device=device, batch_size=batch_size)
    return dataclasses.replace(config, data=source, train=train)


def in_precision(config: Config, precision: str) -> Config:
    """The configuration of the same run in a precision, ``fp32`` or ``bf16``."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))


def load_model(config: Config) -> PreTrainedModel:
    """The plain model of a resolved configuration, on its device."""
    return _load(config)[0]


def _load(config: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    silence_transformers()
    model, tokenizer, _ = models.load(build.chosen(config), config.task, config.seed)
    model.to(torch.device(config.train.device))  # type: ignore[arg-type]  # transformers wraps nn.Module.to
    return model, tokenizer


@dataclass(frozen=True)
class Workload:
    """A model and an epoch of batches."""

    config: Config
    """The configuration, with device, precision and the model's folder resolved."""
    tokenizer: PreTrainedTokenizerBase
    train: datasets.Dataset
    """Tokenized rows."""
    order: Sequence[Sequence[int]]
    """The rows of each batch of an epoch: grouped by length as in training, the batches then in random order."""
    limit: int
    """Maximal number of tokens of an example, to which :meth:`padded_batch` pads every example."""
    e2e_dir: Path | None = None
    """The folder of E2E's files; None for generated text."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.config.train.device

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return len(self.order)

    def batch(self, number: int) -> Batch:
        """A batch padded to its own longest example, on the device; ``number`` wraps around."""
        return self._collate(number, 8 if self.device == "cuda" else 1)  # as in training

    def padded_batch(self, number: int) -> Batch:
        """The same examples, all padded to the limit."""
        return self._collate(number, self.limit)

    def _collate(self, number: int, multiple: int) -> Batch:
        rows = [self.train[row] for row in self.order[number % len(self.order)]]
        collated = PaddingCollator(self.tokenizer, multiple)(rows)
        return {name: tensor.to(self.device) for name, tensor in collated.items()}

    def describe(self) -> dict[str, str]:
        """A description of the workload, for the facts of a report."""
        lengths = sorted(len(ids) for ids in self.train["input_ids"])
        real = self.config.data.source != "mini"
        text = "the real CoLA's" if real else "generated text in the shape of CoLA's"
        return {
            "model": self.config.model.name,
            "data": f"{text} training split, {len(lengths):,} examples of {lengths[len(lengths) // 2]} tokens "
            f"(median; longest {lengths[-1]})",
            "batch size": str(self.config.train.batch_size),
            "precision": self.config.train.precision,
        }


def prepare(config: Config, e2e_dir: Path | None = None) -> Workload:
    """Load and tokenize the data, and form the batches.

    Args:
        config: from :func:`configure`.
        e2e_dir: the folder of E2E's files; None for generated text.

    Raises:
        BenchmarkError: fewer examples than one batch.
        ConfigError, DataError, ModelError: the device, the data or the model is not available.
    """
    config = resolve_device(config)
    config = dataclasses.replace(config, model=mini_model.located(config))
    model, tokenizer = _load(config)
    loaded = data.load(config.task, config.drawn_data, config.seed)
    tokenized = data.tokenize(loaded, tokenizer, length_limit(config.train.max_length, model))
    train, size = tokenized.train, config.train.batch_size
    lengths = [len(ids) for ids in train["input_ids"]]
    rows = list(EpochSampler(lengths, size, config.train.group_by_length, config.seed))
    # Skip the last batch, which may be short.
    order = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    if not order:
        raise BenchmarkError(f"--batch-size {size}: the training split has {len(rows)} examples, fewer than one batch")
    # Shuffle, as grouping by length sorts the batches within parts of an epoch.
    random.Random(config.seed).shuffle(order)
    return Workload(config, tokenizer, train, order, tokenized.facts["max_length"], e2e_dir)
