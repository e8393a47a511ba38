"""Decode a run's test split with the selected weights, once, and score the texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa import models, records
from rosa.config import Config
from rosa.data import e2e
from rosa.evaluation import nlg
from rosa.evaluation.generation import hypotheses
from rosa.run.folder import selected_weights
from rosa.run.reload import restore

KEPT = ("prompts", "unended", "empty", "limited", "hypotheses", "decoding", "warnings")
"""What the record keeps of the facts beside the hypotheses."""


def score(config: Config, folder: Path, record: dict[str, Any], progress: bool) -> None:
    """Decode and score the test split with the selected weights, which training has left in the run's folder.

    Args:
        config: with its device resolved, and ``model.path`` set where the project makes the model itself.
        folder: the run's.
        record: gets ``generation`` and more ``warnings``; written before, so that a stopped run need not train again.
        progress: draw a bar.

    Raises:
        DataError, DecodingError, JournalError, ScoringError: the split cannot be had, decoded or scored.
    """
    records.write(folder, record)
    model, tokenizer, _ = models.load(config.model, config.task, config.seed)
    weights = selected_weights(config, folder)
    restore(model, config.method, weights)
    epoch = record["metrics"][config.chosen_epoch]["epoch"]
    record["generation"] = on_test_split(config, model, tokenizer, folder, epoch, progress)
    record["warnings"] = [*record["warnings"], *warnings(record["generation"])]
    if config.train.keep not in (config.chosen_epoch, "both"):
        weights.unlink()


def on_test_split(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    epoch: float,
    progress: bool,
) -> dict[str, Any]:
    """Decode the test split into the run's folder, and score it.

    Interrupted, it goes on where it stopped; the hypotheses that are there already are not decoded again.

    Args:
        config: of the run, with its device resolved.
        model: plain, with the weights that another split than the test split selected.
        tokenizer: the model's.
        folder: the run's.
        epoch: the one that the weights are of.
        progress: draw a bar.

    Returns:
        What the record keeps (``generation``): split, weights and epoch, how many prompts there were and how many
        hypotheses never ended or are empty, the hypotheses' file and hash, decoding settings, scores, the scorer.

    Raises:
        DataError, DecodingError, JournalError, ScoringError: the split cannot be had, decoded or scored.
    """
    split = config.task.test
    groups = e2e.load(config.task, config.data, config.seed).groups[split]
    written = hypotheses.write(
        model.to(torch.device(config.train.device)),  # type: ignore[arg-type]  # transformers wraps nn.Module.to
        tokenizer,
        [e2e.prompt(config.task, group.mr) for group in groups],
        config.decoding,
        folder / f"{split}.{config.chosen_epoch}.txt",
        {"task": config.task.name, "split": split, "weights": config.chosen_epoch, "epoch": epoch},
        progress=progress,
    )
    scores = nlg.score(written.texts, [group.references for group in groups])
    kept = {name: written.facts[name] for name in KEPT}
    return {"split": split, "weights": config.chosen_epoch, "epoch": epoch, **kept, **scores.as_dict()}


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What a reader of the scores should know, in words."""
    missing = [f"{nlg.METRICS[name]} is missing: {why}" for name, why in found["scorer"]["missing"].items()]
    return [*found["warnings"], *missing]
