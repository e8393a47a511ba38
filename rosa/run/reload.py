"""Rebuild the models of a finished run from its folder."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa import models, records
from rosa.adapters import attach, merge
from rosa.config import Config, MethodConfig, from_dict
from rosa.data import resolved_task
from rosa.errors import ExportError
from rosa.records import Record, Rule
from rosa.records.schema import Model
from rosa.run import mini_model
from rosa.run.folder import WEIGHTS
from rosa.training import load_weights


@dataclass(frozen=True)
class FinishedRun:
    """A run's record, its pretrained model and its fine-tuned model."""

    record: Record
    config: Config
    weights: Rule
    """``best`` or ``last``: the epoch of ``plain``."""
    base: PreTrainedModel
    """The pretrained model, with the head as it was before training."""
    plain: PreTrainedModel
    """The fine-tuned model, merged."""
    attached: PreTrainedModel | None
    """The fine-tuned model with the method attached, if that was asked for."""
    tokenizer: PreTrainedTokenizerBase

    def origin(self) -> str:
        """A sentence for the README of an export."""
        score = records.score(self.record, self.weights)
        selection = self.record["metrics"]["selection"]
        source = ":".join(part for part in (self.config.model.source, self.config.model.path) if part)
        return (
            f"Fine-tuned on {self.config.task.name} with {self.config.method.name} from {self.config.model.name} "
            f"({source}), {self.weights} epoch, {selection['metric']} {score:.4f} on {selection['split']}: "
            f"{records.describe(self.record)}, started {self.record['started']}."
        )


def load(folder: Path, weights: Rule | None = None, attached: bool = False) -> FinishedRun:
    """Rebuild the pretrained model as the run did, and the fine-tuned one from the run's weights.

    Args:
        folder: of the run; holds ``record.json``.
        weights: ``best`` or ``last`` epoch; by default the one that the run's ``selection`` chose.
        attached: also give the fine-tuned model with its method attached.

    Raises:
        ExportError: no run's folder, an unfinished run, one whose model is not Hugging Face's, weights that were not
            kept, or pretrained weights that are not the run's.
        RecordError, ConfigError, ModelError, AdapterError: a record, model or weights file that does not fit.
    """
    record, config = read(folder)
    if config.model.source == "perceptron":
        raise ExportError(
            f"{folder}: the run's model={config.model.name} is a perceptron, which neither Hugging Face nor PEFT "
            "can load; expected a run on texts"
        )
    weights = weights or config.chosen_epoch
    path = folder / WEIGHTS[weights]
    if not path.is_file():
        kept = [name for name, file in WEIGHTS.items() if (folder / file).is_file()]
        other = f"use --weights {kept[0]}, or r" if kept else "r"
        raise ExportError(
            f"{path}: no such file (the run had train.keep={record['config']['train'].get('keep')}); "
            f"{other}un again with train.keep={weights} train.force=true"
        )
    plain, tokenizer, facts = models.load(mini_model.located(config), config.task, config.seed)
    _refuse_other_weights(record["model"], facts)
    base = copy.deepcopy(plain)  # base, as a copy loses which parameters were drawn anew
    attach(plain, config.method, verbose=False)
    load_weights(plain, path)
    unmerged = copy.deepcopy(plain).eval() if attached else None
    merge(plain)
    plain.eval()
    return FinishedRun(record, config, weights, base, plain, unmerged, tokenizer)


def read(folder: Path) -> tuple[Record, Config]:
    """The record of a finished run and its configuration, with the labels found in the data.

    Raises:
        ExportError: no run's folder, or an unfinished run.
        RecordError, ConfigError: a record that cannot be read.
    """
    record = _finished_record(folder)
    config = from_dict(record["config"])
    return record, dataclasses.replace(config, task=resolved_task(config.task, record["data"]))


def _finished_record(folder: Path) -> Record:
    path = folder / records.RECORD
    if not path.is_file():
        raise ExportError(f"{folder}: expected the folder of a run, with {records.RECORD}")
    record = records.read(path)
    if record["status"] != "done":
        raise ExportError(
            f"{folder}: the run's status is {record['status']}, expected done; finish it with: {record['command']}"
        )
    return record


def _refuse_other_weights(recorded: Model, found: Mapping[str, Any]) -> None:
    """Refuse pretrained weights whose hash differs from the record's; hub models have a revision instead of a hash."""
    if recorded["sha256"] != found["sha256"]:
        raise ExportError(
            f"model.path={found['path']}: these are not the pretrained weights of the run: their sha256 is "
            f"{found['sha256']}, expected {recorded['sha256']}"
        )


def restore(model: nn.Module, method: MethodConfig, weights: Path) -> None:
    """Turn a pretrained model, in place, into the fine-tuned plain model of a file of weights.

    Raises:
        AdapterError: the file is of another method, rank or model.
    """
    attach(model, method, verbose=False)
    load_weights(model, weights)
    merge(model)
    model.eval()
