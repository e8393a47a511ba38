"""From the folder of a finished run to its models, and whether an export of them scores as its record says."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rosa import inputs, mini_models, models, records
from rosa.config import Config, from_dict
from rosa.export.errors import ExportError
from rosa.run import WEIGHTS, restore
from rosa.training.trainer import by_length


@dataclass(frozen=True)
class FinishedRun:
    """A run's record, and its models before and after."""

    record: dict[str, Any]
    config: Config
    weights: str
    """``best`` or ``last``: the epoch that ``plain`` is of."""
    base: PreTrainedModel
    """The pretrained model, with the head that training started from."""
    plain: PreTrainedModel
    """After training, merged."""
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


def load(folder: Path, weights: str | None = None) -> FinishedRun:
    """Rebuild the pretrained model as the run did, and the fine-tuned one from the run's weights.

    Args:
        folder: of the run; holds ``record.json``.
        weights: ``best`` or ``last`` epoch; by default the one that the run's ``selection`` chose.

    Raises:
        ExportError: no run's folder, an unfinished run, one whose model is not Hugging Face's, weights that were not
            kept, or pretrained weights that are not the run's.
        RecordError, ConfigError, ModelError, AdapterError: a record, model or weights file that does not fit.
    """
    record = _finished_record(folder)
    config = from_dict(record["config"])
    if config.model.source == "perceptron":
        raise ExportError(
            f"{folder}: the run's model={config.model.name} is a perceptron, which neither Hugging Face nor PEFT "
            "can load; expected a run on texts"
        )
    weights = weights or config.chosen_epoch
    path = folder / WEIGHTS[weights]
    if not path.is_file():
        kept = [name for name, file in WEIGHTS.items() if (folder / file).is_file()]
        other = f"ask for --weights {kept[0]}, or r" if kept else "r"
        raise ExportError(
            f"{path}: no such file; train.keep={record['config']['train'].get('keep')} of this run does not keep it: "
            f"{other}un again with train.keep={weights} train.force=true"
        )
    base, tokenizer, facts = models.load(mini_models.located(config), config.task, config.seed)
    _refuse_other_weights(record["model"], facts)
    plain = copy.deepcopy(base)
    restore(plain, config.method, path)
    return FinishedRun(record, config, weights, base, plain, tokenizer)


def _finished_record(folder: Path) -> dict[str, Any]:
    path = folder / records.RECORD
    if not path.is_file():
        raise ExportError(f"{folder}: not the folder of a run, which holds {records.RECORD}")
    record = records.read(path)
    if record["status"] != "done":
        raise ExportError(
            f"{folder}: the run's status is {record['status']}, expected done; finish it with: {record['command']}"
        )
    return record


def _refuse_other_weights(recorded: dict[str, Any], found: dict[str, Any]) -> None:
    """Hub models have no hashes in a record; their revision pins them."""
    if recorded["sha256"] != found["sha256"]:
        raise ExportError(
            f"model.path={found['path']}: the pretrained weights there are not those that the run started from: "
            f"sha256 {found['sha256']}, the record has {recorded['sha256']}"
        )


# --- does it score as the record says --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """An export that was loaded again, beside the model that it was made from, on the run's evaluation splits."""

    scores: tuple[tuple[str, str, float, float | None], ...]
    """Split, metric, the loaded export's score, the record's (None where it is undefined)."""
    logits_difference: float
    """Largest difference of a logit over the largest logit."""

    def table(self) -> str:
        """Score by score, and the logits."""
        lines = [
            f"{split}  {metric}  {score:.4f} (record: {'undefined' if recorded is None else f'{recorded:.4f}'})"
            for split, metric, score, recorded in self.scores
        ]
        lines.append(f"largest difference of a logit, as a share of the largest: {self.logits_difference:.1e}")
        return "\n".join(lines)


def check(run: FinishedRun, kind: str, folder: Path) -> Agreement:
    """Load an export again and score it on the evaluation splits of its run.

    Args:
        run: what was exported; after ``peft``, its ``base`` carries the adapter.
        kind: ``merged`` or ``peft``.
        folder: where it was exported to.

    Raises:
        DataError: the run's data is not where it was.
    """
    config = run.config
    # Data, collator and metrics are made as the run made them; the model that comes with them is of no use here.
    parts = inputs.gather(dataclasses.replace(config, model=mini_models.located(config)))
    loaded = _loaded(run, kind, folder)
    scores, difference, largest = [], 0.0, 0.0
    for split, examples in parts.evaluation.items():
        kept, labels = [], []
        for batch in DataLoader(by_length(examples), config.train.evaluation_batch_size, collate_fn=parts.collator):
            expected, actual = _logits(run.plain, batch), _logits(loaded, batch)
            difference = max(difference, float((actual - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
            kept.append(parts.reduce(actual, batch["labels"]) if parts.reduce else actual)
            labels.append(batch["labels"].flatten())
        recorded = run.record["metrics"][run.weights][split]
        found = parts.scorer(EvalPrediction(torch.cat(kept).numpy(), torch.cat(labels).numpy()))
        scores += [(split, metric, value, recorded[metric]) for metric, value in found.items()]
    return Agreement(tuple(scores), difference / largest)


def _loaded(run: FinishedRun, kind: str, folder: Path) -> nn.Module:
    """As somebody else would load it."""
    if kind == "merged":
        auto: Any = AutoModelForSequenceClassification if run.config.task.has_head else AutoModelForCausalLM
        return auto.from_pretrained(folder, local_files_only=True)
    from peft import PeftModel

    return PeftModel.from_pretrained(run.base, folder)


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Of one batch, float32: (examples, classes), or (examples, tokens, vocabulary)."""
    model.eval()
    with torch.no_grad():
        return model(**batch).logits.float()
