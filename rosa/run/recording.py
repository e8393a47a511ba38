"""What a run puts into its record as it goes: history, best and last epoch, costs, diagnostics; and W&B's figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from rosa import records
from rosa.adapters import diagnostics
from rosa.adapters.callback import EVENT, MOVED
from rosa.config import Config
from rosa.records import tracking
from rosa.run import build
from rosa.training import HarnessTrainer, best_index, costs


class RecordCallback(TrainerCallback):
    """Keeps the record on disk up to date after each evaluation, and mirrors everything logged to W&B."""

    def __init__(
        self,
        splits: Sequence[str],
        metrics: Sequence[str],
        folder: Path,
        record: dict[str, Any],
        tracker: tracking.Tracker,
    ) -> None:
        self.splits = splits
        self.metrics = metrics
        self.folder = folder
        self.record = record
        self.tracker = tracker
        self._mirrored = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mirror again what was logged before a resume: an earlier session that was killed may not have sent it."""
        self.on_log(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mirror new entries, the resamples' among them."""
        for number in range(self._mirrored, len(state.log_history)):
            entry = state.log_history[number]
            # Lists, one number a layer, are for the record.
            values = {name: value for name, value in entry.items() if name != "step" and not isinstance(value, list)}
            self.tracker.log(values, entry["step"], number)
        self._mirrored = len(state.log_history)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the history so far."""
        fill_history(self.record, self.splits, self.metrics, state.log_history)
        records.write(self.folder, self.record)


def fill_history(
    record: dict[str, Any], splits: Sequence[str], metrics: Sequence[str], log: list[dict[str, Any]]
) -> None:
    """Sort a Trainer's log into the record: evaluations by epoch, training losses, resamples."""
    evaluations: dict[int, dict[str, Any]] = {}
    record["training"], record["resamples"] = [], []
    for entry in log:
        if EVENT in entry:
            record["resamples"].append(entry)
        elif "loss" in entry:
            record["training"].append(entry)
        for split in splits:
            scores = {name: entry.get(f"eval_{split}_{name}") for name in (*metrics, "loss")}
            if any(value is not None for value in scores.values()):
                at = evaluations.setdefault(entry["step"], {"epoch": entry["epoch"], "step": entry["step"]})
                at[split] = scores
    record["history"] = [evaluations[step] for step in sorted(evaluations)]


def finish(config: Config, record: dict[str, Any], trainer: HarnessTrainer) -> None:
    """Fill in the history, which epochs were best and last and by what rule, and what the training cost."""
    task = config.task
    fill_history(record, config.evaluated, task.metrics, trainer.state.log_history)
    split, headline = config.evaluated[0], task.headline
    scores = [evaluation[split][headline] for evaluation in record["history"]]
    best = f"{'lowest' if task.lower_is_better else 'highest'} {headline} on {split}, first of equals"
    rule = {"best": best, "last": "last epoch"}[config.chosen_epoch]
    record["metrics"] = {
        "best": record["history"][best_index(scores, task.lower_is_better)],
        "last": record["history"][-1],
        "selection": {"split": split, "metric": headline, "rule": rule},
    }
    record["costs"] = {
        **trainer.costs.meter.summary(),
        **trainer.costs.memory,
        **costs.peak_memory(config.train.device),
    }


def diagnose(config: Config, model: nn.Module, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What training changed about the adapted weights, against the pretrained ones, which are loaded once more."""
    found: dict[str, Any] = {}
    if diagnostics.adds_to_weights(model):
        changes = diagnostics.changes(model, build.pretrained(config))
        found["layers"] = [dataclasses.asdict(change) for change in changes]
    # The last subspace ends with the training, and with no resample.
    ends = [entry for entry in log if MOVED in entry and EVENT not in entry]
    if ends:
        found["last_subspace"] = ends[-1]
    return found


def summary(record: dict[str, Any]) -> dict[str, float]:
    """The figures of a finished run under the names that tables use."""
    flat = {}
    for rule in records.RULES:
        for split, scores in record["metrics"][rule].items():
            if isinstance(scores, dict):
                flat.update({f"{rule}/{split}/{name}": value for name, value in scores.items()})
    texts = record["generation"]
    flat.update({f"{texts['split']}/{name}": value for name, value in texts.get("scores", {}).items()})
    for group in ("params", "costs"):
        flat.update({f"{group}/{name}": value for name, value in record[group].items()})
    return {name: value for name, value in flat.items() if value is not None and math.isfinite(value)}
