"""What a run trains, on what, and by which measure: the one place that depends on what kind of task it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    default_data_collator,
)

from rosa import data, models
from rosa.config import Config
from rosa.data import e2e, tokenization
from rosa.data import regression as regression_data
from rosa.evaluation import classification, perplexity
from rosa.evaluation import regression as regression_scores
from rosa.models import perceptron
from rosa.training import Examples
from rosa.utils.names import IGNORED


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
    """By split name, in the order of ``Config.evaluated``."""
    data_facts: dict[str, Any]
    """What a record keeps of the data."""
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    scorer: classification.Scorer | perplexity.Scorer | regression_scores.Scorer
    reduce: Callable[[Tensor, Tensor], Tensor] | None = None
    """What the scorer is given of a batch's logits and labels; the logits themselves where None."""


def gather(config: Config) -> Inputs:
    """Load the model and the data of a run.

    Args:
        config: with its device resolved, and ``model.path`` set where the project makes the model itself.

    Raises:
        ModelError, DataError: one of them cannot be had, or does not fit the other.
        ConfigError: the task names an unknown metric.
    """
    makers = {"vector_regression": _vectors, "generation": _pairs}
    return makers.get(config.task.kind, _texts)(config)


def read(config: Config) -> data.TaskData | e2e.GenerationData:
    """The texts of a run, not yet tokenized.

    Raises:
        DataError: they cannot be had.
    """
    load = e2e.load if config.task.kind == "generation" else data.load
    return load(config.task, config.data, config.seed, config.holdout_share)


def pretrained(config: Config) -> nn.Module:
    """The model of a run alone, as it is before a method is attached; arguments and errors as for :func:`gather`."""
    if config.task.kind == "vector_regression":
        return perceptron.load(config.model)[0]
    return models.load(config.model, config.task, config.seed)[0]


def _texts(config: Config) -> Inputs:
    loaded = data.load(config.task, config.data, config.seed, config.holdout_share)
    model, tokenizer, facts = models.load(config.model, config.task, config.seed)
    tokenized = data.tokenize(loaded, tokenizer, models.length_limit(config.train.max_length, model))
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=_multiple(config))
    scorer = classification.Scorer(config.task)
    return Inputs(model, facts, tokenizer, tokenized.train, tokenized.evaluation, tokenized.facts, collator, scorer)


def _pairs(config: Config) -> Inputs:
    scorer = perplexity.Scorer(config.task)
    loaded = e2e.load(config.task, config.data, config.seed, config.holdout_share)
    model, tokenizer, facts = models.load(config.model, config.task, config.seed)
    limit = models.length_limit(config.train.max_length, model)
    tokenized = tokenization.tokenize_pairs(loaded, config.task, tokenizer, limit)
    # Named for the models it was written for; what it does is to pad labels along with the inputs.
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=_multiple(config))
    return Inputs(
        model,
        facts,
        tokenizer,
        tokenized.train,
        tokenized.evaluation,
        tokenized.facts,
        collator,
        scorer,
        perplexity.token_losses,
    )


def _multiple(config: Config) -> int | None:
    """GPUs are fastest at lengths of a multiple of eight."""
    return 8 if config.train.device == "cuda" else None


def _vectors(config: Config) -> Inputs:
    scorer = regression_scores.Scorer(config.task)
    model, facts = perceptron.load(config.model)
    examples = regression_data.load(config.task, config.data, model)
    collator = default_data_collator
    return Inputs(model, facts, None, examples.train, examples.evaluation, examples.facts, collator, scorer)
