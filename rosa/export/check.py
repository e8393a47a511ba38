"""Load an export again and compare its scores and logits with those of the finished run."""

from __future__ import annotations

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
)

from rosa.records import by_split
from rosa.run import build, mini_model
from rosa.run.reload import FinishedRun
from rosa.training.batches import by_length


@dataclass(frozen=True)
class Agreement:
    """Scores and logits of a reloaded export against the model it was made from, on the run's evaluation splits."""

    scores: tuple[tuple[str, str, float, float | None], ...]
    """Split, metric, the loaded export's score, the record's (None where it is undefined)."""
    logits_difference: float
    """Largest absolute difference of a logit, divided by the largest absolute logit; of the prompts that all texts of a
    batch share, none is made."""

    def table(self) -> str:
        """One line per score, and one for the logits."""
        lines = [
            f"{split}  {metric}  {score:.4f} (record: {'undefined' if recorded is None else f'{recorded:.4f}'})"
            for split, metric, score, recorded in self.scores
        ]
        lines.append(f"largest difference of a logit, as a share of the largest: {self.logits_difference:.1e}")
        return "\n".join(lines)


def check(run: FinishedRun, kind: str, folder: Path) -> Agreement:
    """Load an export again and score it on the evaluation splits of its run.

    Args:
        run: the run that was exported; with ``peft``, the adapter is attached to its ``base`` in place.
        kind: ``merged`` or ``peft``.
        folder: the export.

    Raises:
        DataError: the run's data is no longer where it was.
    """
    config = run.config
    # Builds data, collator and metrics as the run did; the model that it builds too is not used.
    texts = build.read(config)
    parts = build.gather(build.complete(config, mini_model.located(config), texts), texts)
    reduce = parts.scorer.reduce
    loaded = _loaded(run, kind, folder)
    scores, difference, largest = [], 0.0, 0.0
    for split, examples in parts.evaluation.items():
        kept, labels = [], []
        for batch in DataLoader(by_length(examples), config.train.evaluation_batch_size, collate_fn=parts.collator):
            expected, actual = _logits(run.plain, batch), _logits(loaded, batch)
            difference = max(difference, float((actual - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
            kept.append(reduce(actual, batch["labels"]) if reduce else actual)
            labels.append(batch["labels"].flatten())
        recorded = by_split(run.record["metrics"][run.weights])[split]
        found = parts.scorer(EvalPrediction(torch.cat(kept).numpy(), torch.cat(labels).numpy()))
        scores += [(split, metric, value, recorded[metric]) for metric, value in found.items()]
    return Agreement(tuple(scores), difference / largest)


def _loaded(run: FinishedRun, kind: str, folder: Path) -> nn.Module:
    """The export, loaded by transformers or peft alone."""
    if kind == "merged":
        auto: Any = AutoModelForSequenceClassification if run.config.task.is_labelled else AutoModelForCausalLM
        return auto.from_pretrained(folder, local_files_only=True)
    from peft import PeftModel

    return PeftModel.from_pretrained(run.base, folder)


def _logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Logits of one batch in float32: (examples, classes), or (examples, tokens that are kept, vocabulary)."""
    model.eval()
    with torch.no_grad():
        return model(**batch).logits.float()
