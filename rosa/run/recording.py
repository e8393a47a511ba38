"""Keep a run's record up to date and mirror it to W&B; the functions follow the order of a run."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import TrainerCallback

from rosa import records
from rosa.adapters import diagnostics, support
from rosa.adapters.callback import ResampleCallback
from rosa.adapters.resampling import resampled
from rosa.adapters.support_callback import SupportCallback
from rosa.config import Config
from rosa.errors import InterruptedRun
from rosa.records import Record, environment, tracking
from rosa.records.schema import (
    Costs,
    Diagnostics,
    Environment,
    Evaluation,
    LayerChange,
    Loss,
    Metrics,
    Resample,
    Subspace,
    Support,
)
from rosa.run import build, forgetting, untrained
from rosa.run.earlier import CHECKPOINTS, environment_changes
from rosa.run.folder import WEIGHTS, Start, close, failure
from rosa.training import BestWeightsCallback, HarnessTrainer, best_index, costs, save_weights
from rosa.training.callbacks import ProgressCallback
from rosa.utils import distributed
from rosa.utils.names import EVENT, MOVED
from rosa.utils.seeding import derive


@contextmanager
def kept(config: Config, folder: Path, start: Start) -> Iterator[tracking.Tracker]:
    """Close the record when the block ends: ``done``, or ``failed`` and why; a run that was stopped stays ``running``.

    Only the main process has a record and a W&B run. The W&B run keeps a copy of a record that was closed.

    Yields:
        The tracker of the W&B run; in the other processes, one that does nothing.
    """
    if not distributed.is_main():
        yield tracking.Tracker(mode="disabled")
        return
    record = start.record
    run_id = "/".join(str(part) for part in record["identity"].values())
    resume = start.trained or start.checkpoint is not None
    tracker = tracking.start(config, folder, run_id, resume, whole=not start.trained)
    exit_code = 1
    try:
        now: Environment = {**environment.environment(config.train.device), "processes": distributed.count()}
        elsewhere = environment_changes(record["environment"], now)
        record["warnings"] = [*(text for text in record["warnings"] if text not in elsewhere), *elsewhere]
        if not start.trained:
            record["environment"] = now
        record["wandb"] = {"id": tracker.id, "mode": tracker.mode}
        records.write(folder, record)  # a checkpoint may come before the next write, and a kill after it
        with distributed.losses_named(), distributed.last_words(lambda error: close(folder, record, failure(error))):
            yield tracker
        tracker.summary(summary(record))
        close(folder, record)
        exit_code = 0
        tracker.keep(folder / records.RECORD)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    except (KeyboardInterrupt, SystemExit, InterruptedRun):
        raise  # stopped by a signal; the same command resumes the run
    except BaseException as error:
        close(folder, record, failure(error))
        tracker.keep(folder / records.RECORD)
        raise
    finally:
        tracker.finish(exit_code)


def callbacks(
    config: Config,
    model: nn.Module,
    folder: Path,
    record: Record,
    tracker: tracking.Tracker,
    progress: bool,
) -> list[TrainerCallback]:
    """The callbacks of a run in the order in which they are called, for this process.

    Args:
        config: the run.
        model: with its method attached; decides which callbacks the method needs.
        folder: the run's.
        record: kept up to date by the main process.
        tracker: the W&B run, which gets everything logged.
        progress: draw a progress bar.
    """
    split, headline = config.evaluated[0], config.task.headline
    found: list[TrainerCallback] = []
    if distributed.is_main():
        found.append(RecordCallback(config.evaluated, config.task.metrics, folder, record, tracker))
    if resampled(model):
        found.append(ResampleCallback(seed=derive(config.seed, "subspace")))
    if support.supported(model):
        found.append(SupportCallback(folder, start_over=True))
    if distributed.is_main() and "best" in _kept_weights(config):
        metric = f"eval_{split}_{headline}"
        found.append(BestWeightsCallback(folder / WEIGHTS["best"], metric, config.task.lower_is_better))
    if progress:
        found.append(ProgressCallback(split, headline))
    return found


def _kept_weights(config: Config) -> set[str]:
    """The epochs whose weights are saved in the run's folder: those of ``train.keep`` and the tested one."""
    asked = {"none": set(), "both": set(WEIGHTS)}.get(config.train.keep, {config.train.keep})
    return asked | ({config.chosen_epoch} if config.task.test else set())


class RecordCallback(TrainerCallback):
    """Keeps the record on disk up to date after each evaluation, and mirrors everything logged to W&B."""

    def __init__(
        self,
        splits: Sequence[str],
        metrics: Sequence[str],
        folder: Path,
        record: Record,
        tracker: tracking.Tracker,
    ) -> None:
        self.splits = splits
        self.metrics = metrics
        self.folder = folder
        self.record = record
        self.tracker = tracker
        self._mirrored = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send everything that was logged before a resume again: a killed session may not have sent it."""
        self.on_log(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send new log entries, including those of resamples."""
        for number in range(self._mirrored, len(state.log_history)):
            entry = state.log_history[number]
            # Lists (one number for each layer) go to the record only.
            values = {name: value for name, value in entry.items() if name != "step" and not isinstance(value, list)}
            self.tracker.log(values, entry["step"], number)
        self._mirrored = len(state.log_history)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the history so far."""
        fill_history(self.record, self.splits, self.metrics, state.log_history)
        records.write(self.folder, self.record)


def fill_history(record: Record, splits: Sequence[str], metrics: Sequence[str], log: list[dict[str, Any]]) -> None:
    """Sort a Trainer's log into the record's ``history`` (evaluations), ``training`` (losses) and ``resamples``."""
    evaluations: dict[int, Evaluation] = {}
    record["training"], record["resamples"] = [], []
    for entry in log:
        if EVENT in entry:
            record["resamples"].append(cast(Resample, entry))
        elif "loss" in entry:
            record["training"].append(cast(Loss, entry))
        for split in splits:
            scores = {name: entry.get(f"eval_{split}_{name}") for name in (*metrics, "loss")}
            if any(value is not None for value in scores.values()):
                at = evaluations.setdefault(entry["step"], {"epoch": entry["epoch"], "step": entry["step"]})
                at.update(cast(Evaluation, {split: scores}))
    record["history"] = [evaluations[step] for step in sorted(evaluations)]


def conclude(config: Config, folder: Path, record: Record, trainer: HarnessTrainer, parts: build.Parts) -> Record:
    """Complete the record after training, and save the last epoch's weights if the user keeps them.

    Returns:
        The record, filled in by the main process and returned in every process.
    """
    fill_history(record, config.evaluated, config.task.metrics, trainer.state.log_history)
    record["costs"] = _costs(config, trainer)
    record["diagnostics"] = diagnose(config, parts, trainer.state.log_history)
    record["warnings"] = [*record["warnings"], *parts.scorer.warnings]
    if "last" in _kept_weights(config):
        save_weights(parts.model, folder / WEIGHTS["last"])
    # Last: of a record with metrics, a retry does nothing of the above again.
    record["metrics"] = _metrics(config, record)
    return record


def _metrics(config: Config, record: Record) -> Metrics:
    """The best and the last epoch of the record's history, and the epoch-selection rule."""
    task = config.task
    split, headline = config.evaluated[0], task.headline
    reached = [records.by_split(evaluation)[split][headline] for evaluation in record["history"]]
    scores = [math.nan if value is None else value for value in reached]
    best = f"{'lowest' if task.lower_is_better else 'highest'} {headline} on {split}, first of equals"
    rule = {"best": best, "last": "last epoch"}[config.chosen_epoch]
    return {
        "best": record["history"][best_index(scores, task.lower_is_better)],
        "last": record["history"][-1],
        "selection": {"split": split, "metric": headline, "rule": rule},
    }


def _costs(config: Config, trainer: HarnessTrainer) -> Costs:
    """The measured costs of training, and the bytes of a checkpoint."""
    measured = {
        **trainer.costs.meter.summary(),
        **trainer.costs.memory,
        **costs.peak_memory(config.train.device),
        "checkpoint_bytes": costs.checkpoint_bytes(trainer.accelerator.unwrap_model(trainer.model)),
    }
    return cast(Costs, measured)


def diagnose(config: Config, parts: build.Parts, log: list[dict[str, Any]]) -> Diagnostics:
    """Compute the record's diagnostics: how the trained model differs from the pretrained one (loaded again)."""
    model: Any = parts.model
    found: Diagnostics = {}
    unasked = forgetting.unasked(config)
    before = None if unasked else untrained.with_its_head(config, model)
    if diagnostics.compared(model):
        changes = diagnostics.changes(model, untrained.comparable(config, model, before))
        found["layers"] = [cast(LayerChange, dataclasses.asdict(change)) for change in changes]
    if support.supported(model):
        found["support"] = cast(Support, support.describe(model))
    # The last subspace ends with training, not with a resample.
    ends = [entry for entry in log if MOVED in entry and EVENT not in entry]
    if ends:
        found["last_subspace"] = cast(Subspace, ends[-1])
    if before is None or parts.tokenizer is None:
        found["forgetting_missing"] = unasked
    else:  # last, as it changes the model that was loaded
        found.update(forgetting.measure(config, model, parts.tokenizer, before))
    return found


def summary(record: Record) -> dict[str, float]:
    """The numbers of a finished run for W&B's overview, by flat names: ``best/validation/accuracy``."""
    flat: dict[str, Any] = {}
    for rule in records.RULES:
        for split, scores in records.by_split(record["metrics"][rule]).items():
            flat.update({f"{rule}/{split}/{name}": value for name, value in scores.items()})
    texts = record.get("generation", {})
    flat.update({f"{texts['split']}/{name}": value for name, value in texts.get("scores", {}).items()})
    for group in ("params", "costs"):
        flat.update({f"{group}/{name}": value for name, value in record[group].items()})
    return {name: value for name, value in flat.items() if value is not None and math.isfinite(value)}
