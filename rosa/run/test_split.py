"""Decode a run's test split with the selected weights, once, and score the texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa import models, records
from rosa.config import Config, TaskConfig
from rosa.data import e2e, tokenization
from rosa.evaluation import answers, nlg, perplexity
from rosa.evaluation.generation import hypotheses
from rosa.records import Generation, Record
from rosa.records.schema import Perplexities
from rosa.run.folder import selected_weights
from rosa.run.reload import restore

KEPT = ("prompts", "unended", "empty", "limited", "hypotheses", "decoding", "warnings")
"""Keys of the facts file beside the hypotheses that are copied to the record."""


def score(config: Config, folder: Path, record: Record, progress: bool) -> None:
    """Decode and score the test split with the selected weights, which training has saved in the run's folder.

    Args:
        config: with its device resolved, and ``model.path`` set for the project's own models.
        folder: the run's.
        record: gets ``generation`` and more ``warnings``; written first, so a stopped run need not train again.
        progress: draw a progress bar.

    Raises:
        DataError, DecodingError, JournalError, ScoringError: the split cannot be read, decoded or scored.
    """
    records.write(folder, record)
    model, tokenizer, _ = models.load(config.model, config.task, config.seed)
    weights = selected_weights(config, folder)
    restore(model, config.method, weights)
    epoch = record["metrics"][config.chosen_epoch]["epoch"]
    record["generation"] = on_test_split(config, model, tokenizer, folder, epoch, progress)
    record["generation"]["perplexities"] = perplexities(config, model, tokenizer)
    found = warnings(record["generation"])
    # A retry after a later failure finds its own warnings there.
    record["warnings"] = [*(text for text in record["warnings"] if text not in found), *found]
    if config.train.keep not in (config.chosen_epoch, "both"):
        weights.unlink()


def on_test_split(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    epoch: float,
    progress: bool,
) -> Generation:
    """Decode the test split into the run's folder, and score it.

    After an interruption it resumes; existing hypotheses are not decoded again.

    Args:
        config: of the run, with its device resolved.
        model: plain, with the selected weights; the test split has no part in the selection.
        tokenizer: the model's.
        folder: the run's.
        epoch: the epoch of the weights.
        progress: draw a bar.

    Returns:
        The record's ``generation``: split, weights, epoch, the numbers of prompts and of unended and empty
        hypotheses, the hypotheses' file and hash, decoding settings, scores and scorer.

    Raises:
        DataError, DecodingError, JournalError, ScoringError: the split cannot be read, decoded or scored.
    """
    split = config.task.test
    groups = e2e.load(config.task, config.drawn_data, config.seed).groups[split]
    written = hypotheses.write(
        model.to(torch.device(config.train.device)),  # type: ignore[arg-type]  # transformers wraps nn.Module.to
        tokenizer,
        [e2e.prompt(config.task, group.mr) for group in groups],
        config.decoding,
        folder / f"{split}.{config.chosen_epoch}.txt",
        {"task": config.task.name, "split": split, "weights": config.chosen_epoch, "epoch": epoch},
        progress=progress,
    )
    scores = scored(config.task, groups, written.texts)
    kept = {name: written.facts[name] for name in KEPT}
    return cast(
        Generation, {"split": split, "weights": config.chosen_epoch, "epoch": epoch, **kept, **scores.as_dict()}
    )


def scored(task: TaskConfig, groups: Sequence[e2e.Group], texts: Sequence[str]) -> nlg.Scores | answers.AnswerScores:
    """The scores of one text for each input, by the task's own scorer.

    Raises:
        ScoringError: the texts or references cannot be scored.
    """
    references = [group.references for group in groups]
    if task.scorer == "e2e":
        return nlg.score(texts, references)
    return answers.score(task.scorer, [group.mr for group in groups], texts, references)


def perplexities(config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Perplexities:
    """The perplexities of the first evaluation split by each definition, see :func:`perplexity.definitions`."""
    split = config.task.evaluation[0]
    texts = e2e.load(config.task, config.drawn_data, config.seed)
    one = texts.evaluation[split]
    # Of the training rows one is enough: only the evaluation split's tokens are wanted.
    small = dataclasses.replace(texts, train=texts.train.select([0]), evaluation={split: one})
    task = dataclasses.replace(config.task, loss_on="reference")
    limit = models.length_limit(config.train.max_length, model)
    rows = tokenization.tokenize_pairs(small, task, tokenizer, limit).evaluation[split].to_list()
    found = perplexity.definitions(model, rows, tokenizer.pad_token_id, config.train.evaluation_batch_size)
    return cast(Perplexities, {"split": split, "batch_size": perplexity.BATCH, **found})


def warnings(found: Generation) -> list[str]:
    """Warnings for readers of the scores."""
    missing = [f"{nlg.METRICS.get(name, name)} is missing: {why}" for name, why in found["scorer"]["missing"].items()]
    return [*found["warnings"], *missing]
