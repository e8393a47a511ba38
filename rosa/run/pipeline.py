"""One run, from a configuration to a record: the only place that wires data, model, method and training together."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rosa import models, records
from rosa.adapters import attach, attachment
from rosa.adapters.callback import ResampleCallback
from rosa.config import Config, RosaConfig
from rosa.errors import AdapterError, DivergedError, InterruptedRun
from rosa.records import environment, tracking
from rosa.run import build, mini_model, recording, test_split
from rosa.run.folder import CHECKPOINTS, WEIGHTS, Start, begin, close, failure, selected_weights
from rosa.run.reload import restore
from rosa.run.resolve import check_shares, resolve
from rosa.training import BestWeightsCallback, build_trainer, costs, save_weights
from rosa.training.callbacks import ProgressCallback
from rosa.training.signals import stop_signals
from rosa.utils import distributed
from rosa.utils.console import silence_transformers
from rosa.utils.seeding import derive, generator


@dataclass(frozen=True)
class Outcome:
    """What became of a request for a run."""

    record: dict[str, Any]
    folder: Path
    skipped: bool
    """It had been finished before, and nothing was done."""


def run(config: Config, command: str, progress: bool = True) -> Outcome:
    """Do a run, go on with it where it stopped, or skip it because it is finished.

    Where a launcher has started several processes for it, each calls this, and the first one alone keeps the record.

    Args:
        config: the run; ``train.lr=tuned`` and the ``auto`` settings are resolved here.
        command: the shell command that repeats it, for the record.
        progress: draw a progress bar and print what is adapted.

    Raises:
        BusyError: another process is doing this run.
        InterruptedRun: stopped on SIGINT or SIGTERM, after a checkpoint; asked again, it goes on.
        Exception: whatever stopped the run; its record says ``failed`` and why.
    """
    config, tuning = resolve(config)
    check_shares(config)
    folder = records.folder(config)
    first = distributed.is_main()
    alike = (InterruptedRun, DivergedError, AdapterError)
    with distributed.joined(config.train.device, alike), ExitStack() as held:
        start = distributed.from_main(lambda: begin(config, tuning, command, folder, held))
        record = start.record
        if start.done:
            return Outcome(record, folder, skipped=True)
        try:
            _run(config, folder, start, progress and first)
        except (KeyboardInterrupt, SystemExit, InterruptedRun):
            raise  # somebody asked for it, and asked again it goes on
        except BaseException as error:
            if first and record["status"] == "running":
                close(folder, record, failure(error))
            raise
        if first:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return Outcome(record, folder, skipped=False)


def _run(config: Config, folder: Path, start: Start, progress: bool) -> None:
    """Train and evaluate, filling in the record as facts become known.

    Args:
        config: of the run.
        folder: the run's.
        start: where it stands; its record is filled in.
        progress: draw bars.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    silence_transformers()
    # The Trainer has no name yet for what PyTorch wants it to be called.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    costs.reset_peak_memory(config.train.device)
    record = start.record
    record["environment"] = {**environment.environment(config.train.device), "processes": distributed.count()}

    made = distributed.from_main(lambda: mini_model.located(config))
    located = dataclasses.replace(config, model=made)
    if not distributed.is_main():
        if not start.trained:
            _train_until_stopped(located, folder, start, tracking.Tracker(mode="disabled"), progress)
        return
    run_id = "/".join(str(part) for part in record["identity"].values())
    with _tracked(config, folder, start, run_id) as tracker:
        record["wandb"] = {"id": tracker.id, "mode": tracker.mode}
        if not start.trained:
            _train_until_stopped(located, folder, start, tracker, progress)
        distributed.leave()
        if config.task.test:
            records.write(folder, record)
            _try_on_test_split(located, folder, record, progress)
        tracker.summary(recording.summary(record))
        close(folder, record)


def _train_until_stopped(config: Config, folder: Path, start: Start, tracker: tracking.Tracker, progress: bool) -> None:
    """Train; a signal that any process gets stops all after the same update."""
    with stop_signals(handed_on=distributed.launched()) as stop:
        try:
            _train(config, folder, start, tracker, lambda: distributed.any_of(stop.requested()), progress)
        except InterruptedRun as interruption:
            interruption.signal = stop.number
            raise


def _train(
    config: Config,
    folder: Path,
    start: Start,
    tracker: tracking.Tracker,
    stop_requested: Callable[[], bool],
    progress: bool,
) -> None:
    """Train, score each epoch, keep the weights that are asked for.

    Args:
        config: with ``model.path`` set where the project makes the model itself.
        folder: the run's.
        start: where the run stands; its record is filled in.
        tracker: told of everything logged.
        stop_requested: asked after each update.
        progress: draw a bar.
    """
    record = start.record
    parts = distributed.together(lambda: _adapted(config, record, progress))
    model = parts.model
    split, headline = config.evaluated[0], config.task.headline
    kept = _kept_weights(config)
    callbacks: list[TrainerCallback] = []
    if isinstance(config.method, RosaConfig):
        callbacks.append(ResampleCallback(seed=derive(config.seed, "subspace")))
    if distributed.is_main():
        callbacks.insert(0, recording.RecordCallback(config.evaluated, config.task.metrics, folder, record, tracker))
        if "best" in kept:
            metric = f"eval_{split}_{headline}"
            callbacks.append(BestWeightsCallback(folder / WEIGHTS["best"], metric, config.task.lower_is_better))
    if progress:
        callbacks.append(ProgressCallback(split, headline))
    trainer = build_trainer(
        model,
        parts.tokenizer,
        parts.collator,
        parts.train,
        parts.evaluation,
        parts.scorer,
        parts.reduce,
        config.train,
        config.seed,
        folder / CHECKPOINTS,
        callbacks,
        costs.CostMeter(),
        stop_requested,
    )
    trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)

    def conclude() -> dict[str, Any]:
        recording.finish(config, record, trainer)
        record["diagnostics"] = recording.diagnose(config, model, trainer.state.log_history)
        record["warnings"] = parts.scorer.warnings
        if "last" in kept:
            save_weights(model, folder / WEIGHTS["last"])
        return record

    record.update(distributed.from_main(conclude))


def _adapted(config: Config, record: dict[str, Any], progress: bool) -> build.Inputs:
    """Load the model and the data, and attach the method, noting the facts in the record."""
    parts = build.gather(config)
    model, record["model"], record["data"] = parts.model, parts.model_facts, parts.data_facts
    model.to(torch.device(config.train.device))
    attach(model, config.method, generator=generator(config.seed, "adapter"), verbose=progress)
    done = attachment(model)
    if done is None or (config.task.has_head and not done.head):
        raise models.ModelError(f"model {config.model.name} has no head for {config.task.name}")
    record["params"] = {
        "trainable": done.trainable_parameters,
        "head": done.head_parameters,
        "total": done.total_parameters,
    }
    record["adapted"] = [dataclasses.asdict(layer) for layer in done.layers]
    return parts


def _kept_weights(config: Config) -> set[str]:
    """The epochs whose weights training writes to the run's folder: what the user keeps, and what the test needs."""
    asked = {"none": set(), "both": set(WEIGHTS)}.get(config.train.keep, {config.train.keep})
    return asked | ({config.chosen_epoch} if config.task.test else set())


def _try_on_test_split(config: Config, folder: Path, record: dict[str, Any], progress: bool) -> None:
    """Decode and score the test split with the selected weights, which training has left in the run's folder."""
    model, tokenizer, _ = models.load(config.model, config.task, config.seed)
    restore(model, config.method, selected_weights(config, folder))
    epoch = record["metrics"][config.chosen_epoch]["epoch"]
    record["generation"] = test_split.on_test_split(config, model, tokenizer, folder, epoch, progress)
    record["warnings"] = [*record["warnings"], *test_split.warnings(record["generation"])]
    if config.train.keep not in (config.chosen_epoch, "both"):
        selected_weights(config, folder).unlink()


@contextmanager
def _tracked(config: Config, folder: Path, start: Start, run_id: str) -> Iterator[tracking.Tracker]:
    """A tracker for as long as the run takes, which keeps a copy of the record of a run that ends, well or not."""
    record, resumed = start.record, start.trained or start.checkpoint is not None
    tracker = tracking.start(config, folder, run_id, resumed, whole=not start.trained)
    code = 1
    try:
        yield tracker
        code = 0
        tracker.keep(folder / records.RECORD)
    except (KeyboardInterrupt, SystemExit, InterruptedRun):
        raise
    except BaseException as error:
        close(folder, record, failure(error))
        tracker.keep(folder / records.RECORD)
        raise
    finally:
        tracker.finish(code)
