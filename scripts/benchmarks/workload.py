"""The input of every benchmark: one model, the training rows of a task for it, and their batches as in training."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks import BenchmarkError
from benchmarks.own_model import check_targets, is_language_model, named
from rosa import data, models
from rosa.config import Config, DataConfig, from_hydra, register
from rosa.data.collator import PaddingCollator
from rosa.data.e2e import GenerationData
from rosa.data.tokenization import tokenize_pairs
from rosa.models import length_limit
from rosa.run import build, mini_model
from rosa.run.device import resolve_device
from rosa.training.batches import EpochSampler
from rosa.utils.console import silence_transformers

Batch = dict[str, Any]
"""Tensors, and a language model's ``logits_to_keep``, by the names of the model's inputs."""
Build = Callable[[Config], PreTrainedModel]
"""Makes the plain model that a run of a resolved configuration would have."""

MODEL = "minilm"
"""What is measured by default."""
BATCH_SIZE, TEXTS = 32, 8
"""Examples in a step: of a classifier's sentences, and of a language model's texts, which are several times as long."""
COLA_ROWS = 8551
"""Number of training rows of the real CoLA, and of the generated text that replaces it."""


def configure(
    conf: Path,
    model: str = MODEL,
    data_dir: Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    e2e_dir: Path | None = None,
) -> Config:
    """A run's configuration, from the same files as training's.

    A causal language model is trained on E2E's texts, any other model as a classifier on CoLA's.

    Args:
        conf: the folder of the configuration groups.
        model: a name under ``conf/model``, a folder that ``save_pretrained`` wrote, or a name on the hub.
        data_dir: the folder that holds the real ``CoLA``; None for generated text.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch_size: examples in a step; by default ``BATCH_SIZE``, of a language model ``TEXTS``.
        e2e_dir: the folder of E2E's files, for a language model; None for generated text.

    Raises:
        BenchmarkError: a model that is unknown, cannot be had, or is none of texts.
        ConfigError: a value out of range.
    """
    names = sorted(path.stem for path in (conf / "model").glob("*.yaml") if path.stem not in ("folder", "hub"))
    composed = _composed(conf, [f"model={model}"]).model if model in names else None
    chosen: Any = OmegaConf.to_object(composed) if composed is not None else named(model, names)
    # What is measured by default is known to be an encoder, and other benchmarks than of costs may not need it.
    generates = model != MODEL and is_language_model(chosen, model)
    if generates and data_dir is not None:
        raise BenchmarkError(f"--data-dir {data_dir}: model={model} is measured on E2E's texts; expected --e2e-dir")
    # A model of the project's own, so that it fits the task until the chosen one takes its place.
    like, task = ("mini-gpt2", "e2e") if generates else (MODEL, "cola")
    config = from_hydra(_composed(conf, [f"model={like}", f"task={task}", "data=mini", "logger=none"]))
    folder = e2e_dir if generates else data_dir
    size = config.data.train_size if generates else COLA_ROWS
    source = (
        DataConfig(source="local", dir=str(folder))
        if folder is not None
        else dataclasses.replace(config.data, train_size=size)
    )
    if batch_size is None:
        batch_size = TEXTS if generates else BATCH_SIZE
    train = dataclasses.replace(config.train, device=device, batch_size=batch_size)
    return dataclasses.replace(config, model=chosen, data=source, train=train)


def _composed(conf: Path, overrides: list[str]) -> Any:
    register()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return compose("config", overrides=overrides)


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


def moved(batch: Batch, device: str) -> Batch:
    """A batch on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def sizes(batch: Batch) -> tuple[torch.Size, torch.Size]:
    """The sizes of a batch's tokens and of its labels, on which a step's products depend."""
    return batch["input_ids"].shape, batch["labels"].shape


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
    trims: bool
    """Whether training leaves out a language model's outputs that no label needs; it does not where it compiles."""
    limit: int
    """Maximal number of tokens of an example, to which :meth:`padded_batch` pads every example."""
    e2e_dir: Path | None = None
    """The folder of E2E's files; None for generated text."""
    asked: str = ""
    """What the user wrote after ``model=``; empty for the benchmarks' own model."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.config.train.device

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return len(self.order)

    def batch(self, number: int, compiled: bool = False) -> Batch:
        """A batch as in training, or in that of a compiled model, on the device; ``number`` wraps around."""
        return self._collate(number, build.multiple(self.config), self.trims and not compiled)

    def padded_batch(self, number: int) -> Batch:
        """The same examples, all padded to the limit."""
        return self._collate(number, self.limit, self.trims)

    def _collate(self, number: int, multiple: int, trims: bool) -> Batch:
        rows = [self.train[row] for row in self.order[number % len(self.order)]]
        return moved(PaddingCollator(self.tokenizer, multiple, trims)(rows), self.device)

    def describe(self) -> dict[str, str]:
        """A description of the workload, for the facts of a report."""
        lengths = sorted(len(ids) for ids in self.train["input_ids"])
        name = "E2E" if self.config.task.kind == "generation" else "CoLA"
        real = self.config.data.source != "mini"
        text = f"the real {name}'s" if real else f"generated text in the shape of {name}'s"
        return {
            "model": self.config.model.name,
            "data": f"{text} training split, {len(lengths):,} examples of {lengths[len(lengths) // 2]} tokens "
            f"(median; longest {lengths[-1]})",
            "batch size": str(self.config.train.batch_size),
            "precision": self.config.train.precision,
        }


def prepare(config: Config, e2e_dir: Path | None = None, asked: str = "") -> Workload:
    """Load and tokenize the data, and form the batches.

    Args:
        config: from :func:`configure`.
        e2e_dir: the folder of E2E's files; None for generated text.
        asked: what the user wrote after ``model=``; empty for the benchmarks' own model.

    Raises:
        BenchmarkError: fewer examples than one batch, or a model without layers that are adapted by default.
        ConfigError, DataError, ModelError: the device, the data or the model is not available.
    """
    config = resolve_device(config)
    config = dataclasses.replace(config, model=mini_model.located(config))
    model, tokenizer = _load(config)
    if asked:
        check_targets(model, asked)
    tokenized = _tokenized(config, tokenizer, length_limit(config.train.max_length, model))
    train, size = tokenized.train, config.train.batch_size
    lengths = [len(ids) for ids in train["input_ids"]]
    rows = list(EpochSampler(lengths, size, config.train.group_by_length, config.seed))
    # Skip the last batch, which may be short.
    order = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    if not order:
        raise BenchmarkError(f"--batch-size {size}: the training split has {len(rows)} examples, fewer than one batch")
    # Shuffle, as grouping by length sorts the batches within parts of an epoch.
    random.Random(config.seed).shuffle(order)
    trims = build.trims(config, model)
    return Workload(config, tokenizer, train, order, trims, tokenized.facts["max_length"], e2e_dir, asked)


def _tokenized(config: Config, tokenizer: PreTrainedTokenizerBase, limit: int) -> data.TaskData:
    texts = build.read(config)
    assert texts is not None, "only a regression of vectors has no texts"
    if isinstance(texts, GenerationData):
        return tokenize_pairs(texts, config.task, tokenizer, limit)
    return data.tokenize(texts, tokenizer, limit)
