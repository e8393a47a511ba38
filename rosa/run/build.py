"""Build model, datasets, collator and scorer of a run; the only module that branches on ``task.kind``."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import default_data_collator

from rosa import data, models
from rosa.adapters import attach, attachment
from rosa.config import TRAIN, Config, ModelConfig, TaskConfig, unreached
from rosa.data import base, diabetes, e2e, tokenization
from rosa.data import regression as regression_data
from rosa.data.collator import PaddingCollator
from rosa.errors import ModelError
from rosa.evaluation import classification, perplexity
from rosa.evaluation import regression as regression_scores
from rosa.evaluation.scorer import Scorer
from rosa.models import perceptron
from rosa.records import Record, selection
from rosa.records.schema import AdaptedLayer, Data, Model
from rosa.run.device import attention_for
from rosa.training import TrainerParts
from rosa.utils import distributed
from rosa.utils.seeding import generator

logger = logging.getLogger(__name__)

Texts = data.TaskData | e2e.GenerationData


@dataclass(frozen=True, kw_only=True)
class Parts(TrainerParts):
    """The parts of a run, and the facts about them for its record."""

    model_facts: Model
    data_facts: Data


def read(config: Config) -> Texts | None:
    """The texts of a run, not yet tokenized; None for a regression of vectors, which are made for the model.

    Raises:
        DataError: the texts cannot be read.
    """
    if config.task.kind == "vector_regression":
        return None
    load = e2e.load if config.task.kind == "generation" else data.load
    return load(config.task, config.drawn_data, config.seed, config.holdout_share)


def complete(config: Config, model: ModelConfig, texts: Texts | None) -> Config:
    """Complete the configuration with the values that are known only after reading the data or pretraining the model.

    Args:
        config: with its device resolved.
        model: with ``path`` set if the project makes the model itself.
        texts: from :func:`read`; they give the labels if ``task.labels`` is empty.
    """
    task = data.resolved_task(config.task, texts.facts) if texts else config.task
    return dataclasses.replace(config, model=model, task=task)


def gather(config: Config, texts: Texts | None) -> Parts:
    """Load the model of a run, and tokenize its texts for it.

    The model is pretrained, on the CPU, in evaluation mode, with a freshly drawn head where the task has one.

    Args:
        config: with its device resolved, and completed by :func:`complete`.
        texts: from :func:`read`.

    Raises:
        ModelError, DataError: model or data cannot be loaded, or do not fit each other.
    """
    if texts is None:
        return _vectors(config)
    model, tokenizer, facts = models.load(chosen(config), config.task, config.seed)
    limit = models.length_limit(config.train.max_length, model)
    tokens = Path(config.cache_dir) / "tokens"
    if isinstance(texts, e2e.GenerationData):
        tokenized = tokenization.tokenize_pairs(texts, config.task, tokenizer, limit, tokens)
    else:
        tokenized = data.tokenize(texts, tokenizer, limit, tokens)
    return Parts(
        model=model,
        model_facts=cast(Model, facts),
        tokenizer=tokenizer,
        collator=PaddingCollator(tokenizer, multiple(config), trims(config, model)),
        train=tokenized.train,
        evaluation=tokenized.evaluation,
        data_facts=cast(Data, tokenized.facts),
        scorer=scorer(config.task),
    )


def multiple(config: Config) -> int:
    """The number of tokens of which a batch's length is a multiple: a GPU is fastest at multiples of eight."""
    return 8 if config.train.device == "cuda" else 1


def trims(config: Config, model: nn.Module) -> bool:
    """Whether a language model can leave outputs out. A compiled one would be compiled again for other numbers."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return config.task.kind == "generation" and takes and not config.train.compile


def attach_method(config: Config, parts: Parts, record: Record, progress: bool) -> None:
    """Move the model to the run's device, attach the method to it, and fill in the record.

    Args:
        config: as for :func:`gather`.
        parts: the parts of the run; the model is changed in place.
        record: gets ``model``, ``data``, ``params``, ``adapted`` and ``warnings``; the warnings are also printed.
        progress: print the table of adapted layers.

    Raises:
        AdapterError: the method does not fit the model.
        ModelError: the model has no head for the task.
    """
    record["model"], record["data"] = parts.model_facts, parts.data_facts
    parts.model.to(torch.device(config.train.device))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        attach(
            parts.model,
            config.method,
            generator=generator(config.seed, "adapter"),
            verbose=progress,
            example=_example(parts, config.train.device),
        )
    found = [
        *base.warnings(config.task, parts.data_facts),
        *selection.untuned(record["tuning"]),
        *unreached(config.train, config.method, parts.data_facts["splits"][TRAIN]["rows"]),
        *(str(each.message) for each in caught if issubclass(each.category, UserWarning)),
    ]
    record["warnings"] = [*record["warnings"], *found]
    for text in found if distributed.is_main() else ():
        logger.warning("warning: %s", text)
    done = attachment(parts.model)
    if done is None or (config.task.is_labelled and not done.head):
        raise ModelError(f"model {config.model.name} has no head for {config.task.name}")
    record["params"] = {
        "trainable": done.trainable_parameters,
        "head": done.head_parameters,
        "total": done.total_parameters,
    }
    record["adapted"] = [cast(AdaptedLayer, dataclasses.asdict(layer)) for layer in done.layers]


def _example(parts: Parts, device: str) -> dict[str, Any]:
    """The first two training examples as a batch on a device."""
    examples: Any = parts.train
    batch = parts.collator([examples[i] for i in range(min(2, len(examples)))])
    return {
        name: value.to(torch.device(device)) if isinstance(value, Tensor) else value for name, value in batch.items()
    }


def scorer(task: TaskConfig) -> Scorer:
    """The metrics of a task.

    Raises:
        ConfigError: the task names an unknown metric.
    """
    kinds: dict[str, type[Scorer]] = {"vector_regression": regression_scores.Scorer, "generation": perplexity.Scorer}
    return kinds.get(task.kind, classification.Scorer)(task)


def pretrained(config: Config) -> nn.Module:
    """Load only the model of a run, before a method is attached; arguments and errors as for :func:`gather`."""
    if config.task.kind == "vector_regression":
        return _student(config)[0]
    return models.load(chosen(config), config.task, config.seed)[0]


def chosen(config: Config) -> ModelConfig:
    """The model's configuration with the implementation of attention that is fastest here."""
    attention = attention_for(config.model.attention, config.train.device, config.train.precision)
    return dataclasses.replace(config.model, attention=attention)


def _student(config: Config) -> tuple[perceptron.Perceptron, dict[str, Any]]:
    """The network of a vector regression before fine-tuning, pretrained if its data are real, and its facts."""
    return perceptron.load(config.model, diabetes.younger() if config.data.source == "diabetes" else None)


def _vectors(config: Config) -> Parts:
    model, facts = _student(config)
    examples = regression_data.load(config.task, config.drawn_data, model)
    return Parts(
        model=model,
        model_facts=cast(Model, facts),
        tokenizer=None,
        collator=default_data_collator,
        train=examples.train,
        evaluation=examples.evaluation,
        data_facts=cast(Data, examples.facts),
        scorer=scorer(config.task),
    )
