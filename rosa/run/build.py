"""Build model, datasets, collator and scorer of a run; the only module that branches on ``task.kind``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    default_data_collator,
)

from rosa import data, models
from rosa.adapters import attach, attachment
from rosa.config import Config, TaskConfig
from rosa.data import e2e, tokenization
from rosa.data import regression as regression_data
from rosa.errors import ModelError
from rosa.evaluation import classification, perplexity
from rosa.evaluation import regression as regression_scores
from rosa.evaluation.scorer import Scorer
from rosa.models import perceptron
from rosa.training import TrainerParts
from rosa.utils.names import IGNORED
from rosa.utils.seeding import generator


@dataclass(frozen=True, kw_only=True)
class Parts(TrainerParts):
    """The parts of a run, and the facts about them for its record."""

    model_facts: dict[str, Any]
    data_facts: dict[str, Any]


def gather(config: Config) -> Parts:
    """Load the model and the data of a run.

    The model is pretrained, on the CPU, in evaluation mode, with a freshly drawn head where the task has one.

    Args:
        config: with its device resolved, and ``model.path`` set where the project makes the model itself.

    Raises:
        ModelError, DataError: model or data cannot be loaded, or do not fit each other.
    """
    makers = {"vector_regression": _vectors, "generation": _pairs}
    return makers.get(config.task.kind, _texts)(config)


def attach_method(config: Config, parts: Parts, record: dict[str, Any], progress: bool) -> None:
    """Move the model to the run's device, attach the method to it, and fill in the record.

    Args:
        config: as for :func:`gather`.
        parts: their model is changed in place.
        record: gets ``model``, ``data``, ``params`` and ``adapted``.
        progress: print the table of adapted layers.

    Raises:
        AdapterError: the method does not fit the model.
        ModelError: the model has no head for the task.
    """
    record["model"], record["data"] = parts.model_facts, parts.data_facts
    parts.model.to(torch.device(config.train.device))
    attach(parts.model, config.method, generator=generator(config.seed, "adapter"), verbose=progress)
    done = attachment(parts.model)
    if done is None or (config.task.has_head and not done.head):
        raise ModelError(f"model {config.model.name} has no head for {config.task.name}")
    record["params"] = {
        "trainable": done.trainable_parameters,
        "head": done.head_parameters,
        "total": done.total_parameters,
    }
    record["adapted"] = [dataclasses.asdict(layer) for layer in done.layers]


def scorer(task: TaskConfig) -> Scorer:
    """The metrics of a task.

    Raises:
        ConfigError: the task names an unknown metric.
    """
    kinds: dict[str, type[Scorer]] = {"vector_regression": regression_scores.Scorer, "generation": perplexity.Scorer}
    return kinds.get(task.kind, classification.Scorer)(task)


def read(config: Config) -> data.TaskData | e2e.GenerationData:
    """The texts of a run, not yet tokenized.

    Raises:
        DataError: they cannot be loaded.
    """
    load = e2e.load if config.task.kind == "generation" else data.load
    return load(config.task, config.data, config.seed, config.holdout_share)


def pretrained(config: Config) -> nn.Module:
    """The model of a run alone, before a method is attached; arguments and errors as for :func:`gather`."""
    if config.task.kind == "vector_regression":
        return perceptron.load(config.model)[0]
    return models.load(config.model, config.task, config.seed)[0]


def _texts(config: Config) -> Parts:
    loaded = data.load(config.task, config.data, config.seed, config.holdout_share)
    model, tokenizer, facts = models.load(config.model, config.task, config.seed)
    tokenized = data.tokenize(loaded, tokenizer, models.length_limit(config.train.max_length, model))
    return Parts(
        model=model,
        model_facts=facts,
        tokenizer=tokenizer,
        collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=_multiple(config)),
        train=tokenized.train,
        evaluation=tokenized.evaluation,
        data_facts=tokenized.facts,
        scorer=scorer(config.task),
    )


def _pairs(config: Config) -> Parts:
    loaded = e2e.load(config.task, config.data, config.seed, config.holdout_share)
    model, tokenizer, facts = models.load(config.model, config.task, config.seed)
    limit = models.length_limit(config.train.max_length, model)
    tokenized = tokenization.tokenize_pairs(loaded, config.task, tokenizer, limit)
    return Parts(
        model=model,
        model_facts=facts,
        tokenizer=tokenizer,
        # Despite its name, the collator just pads labels along with the inputs.
        collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=_multiple(config)),
        train=tokenized.train,
        evaluation=tokenized.evaluation,
        data_facts=tokenized.facts,
        scorer=scorer(config.task),
    )


def _multiple(config: Config) -> int | None:
    """The number whose multiples batches are padded to: GPUs are fastest at multiples of eight tokens."""
    return 8 if config.train.device == "cuda" else None


def _vectors(config: Config) -> Parts:
    model, facts = perceptron.load(config.model)
    examples = regression_data.load(config.task, config.data, model)
    return Parts(
        model=model,
        model_facts=facts,
        tokenizer=None,
        collator=default_data_collator,
        train=examples.train,
        evaluation=examples.evaluation,
        data_facts=examples.facts,
        scorer=scorer(config.task),
    )
