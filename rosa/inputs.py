"""What a run trains, on what, and by which measure: the one place that depends on what kind of task it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, default_data_collator

from rosa import data, models, perceptron
from rosa.config import Config
from rosa.data import teacher
from rosa.evaluation import classify, regress
from rosa.training import Examples


@dataclass(frozen=True)
class Inputs:
    """The parts of a run, before a method is attached to the model."""

    model: nn.Module
    """Pretrained, on the CPU, in evaluation mode; with a freshly drawn head where the task has one."""
    model_facts: dict[str, Any]
    """What a record keeps of the model."""
    tokenizer: PreTrainedTokenizerBase | None
    """None where the task has no texts."""
    train: Examples
    evaluation: Mapping[str, Examples]
    """By split name, in the order of ``TaskConfig.evaluation``."""
    data_facts: dict[str, Any]
    """What a record keeps of the data."""
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    scorer: classify.Scorer | regress.Scorer


def gather(config: Config) -> Inputs:
    """Load the model and the data of a run.

    Args:
        config: with its device resolved, and ``model.path`` set where the project makes the model itself.

    Raises:
        ModelError, DataError: one of them cannot be had, or does not fit the other.
        ValueError: the task names an unknown metric.
    """
    return _vectors(config) if config.task.kind == "vector_regression" else _texts(config)


def pretrained(config: Config) -> nn.Module:
    """The model of a run alone, as it is before a method is attached; arguments and errors as for :func:`gather`."""
    if config.task.kind == "vector_regression":
        return perceptron.load(config.model)[0]
    return models.load(config.model, config.task, config.seed)[0]


def _texts(config: Config) -> Inputs:
    loaded = data.load(config.task, config.data, config.seed)
    model, tokenizer, facts = models.load(config.model, config.task, config.seed)
    tokenized = data.tokenize(loaded, tokenizer, models.length_limit(config.train.max_length, model))
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if config.train.device == "cuda" else None)
    scorer = classify.Scorer(config.task)
    return Inputs(model, facts, tokenizer, tokenized.train, tokenized.evaluation, tokenized.facts, collator, scorer)


def _vectors(config: Config) -> Inputs:
    scorer = regress.Scorer(config.task)
    model, facts = perceptron.load(config.model)
    examples = teacher.load(config.task, config.data, model)
    collator = default_data_collator
    return Inputs(model, facts, None, examples.train, examples.evaluation, examples.facts, collator, scorer)
