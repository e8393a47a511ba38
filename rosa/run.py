"""One run, from a configuration to a record: the only place that wires data, model, method and training together."""

from __future__ import annotations

import dataclasses
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from transformers import TrainerCallback

from rosa import bookkeeping, costs, inputs, mini_models, models, processes, records, selection, tracking, trial
from rosa.adapters import AdapterError, attach, attachment, merge
from rosa.config import TUNED, Config, ConfigError, MethodConfig, RosaConfig
from rosa.hub import why_unreachable
from rosa.messages import silence_transformers
from rosa.progress import ProgressCallback
from rosa.resampling import ResampleCallback
from rosa.seeding import derive, generator
from rosa.stopping import stop_signals
from rosa.training import (
    BestWeightsCallback,
    DivergedError,
    InterruptedRun,
    build_trainer,
    device_for,
    find_checkpoint,
    load_weights,
    precision_for,
    save_weights,
)

CHECKPOINTS = "checkpoints"
WEIGHTS = {rule: f"{rule}.safetensors" for rule in records.RULES}
"""Files in a run's folder, by the epoch that they are of."""


class BusyError(RuntimeError):
    """Another process is working on this very run."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request for a run."""

    record: dict[str, Any]
    folder: Path
    skipped: bool
    """It had been finished before, and nothing was done."""


@dataclass(frozen=True)
class _Start:
    """Where a run stands when it is asked for: what the process that holds its lock tells the others."""

    record: dict[str, Any]
    done: bool = False
    trained: bool = False
    """Training was over when an earlier call was stopped; only the test split is left to do."""
    checkpoint: Path | None = None
    """To go on from."""


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
    _check_shares(config)
    folder = records.folder(config)
    first = processes.is_first()
    alike = (InterruptedRun, DivergedError, AdapterError)
    with processes.joined(config.train.device, alike), ExitStack() as held:
        start = processes.from_first(lambda: _begin(config, tuning, command, folder, held))
        record = start.record
        if start.done:
            return Outcome(record, folder, skipped=True)
        try:
            _run(config, folder, start, progress and first)
        except (KeyboardInterrupt, SystemExit, InterruptedRun):
            raise  # somebody asked for it, and asked again it goes on
        except BaseException as error:
            if first and record["status"] == "running":
                _close(folder, record, _failure(error))
            raise
        if first:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return Outcome(record, folder, skipped=False)


def _check_shares(config: Config) -> None:
    """Refuse a batch that the processes cannot share equally."""
    size, count = config.train.batch_size, processes.count()
    if size % count:
        below, above = size // count * count, -(-size // count) * count
        nearest = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"train.batch_size={size} with {count} processes: expected a multiple of {count}, {nearest} for instance; "
            "it is the batch of all processes together"
        )


def _begin(config: Config, tuning: dict[str, Any] | None, command: str, folder: Path, held: ExitStack) -> _Start:
    """Take the run's lock for as long as ``held`` lives, see what there is of it, and declare it running."""
    held.enter_context(_locked(folder))
    _remove_unfinished(folder)
    if config.train.force:
        _clear(folder)
    earlier = _earlier_record(folder)
    if earlier is not None and earlier["status"] == "done":
        return _Start(earlier, done=True)
    record, trained = records.new(config, command) | {"tuning": tuning}, False
    if earlier is not None and config.task.test and earlier["metrics"] and _selected(config, folder).is_file():
        record, trained = earlier | {"status": "running", "finished": None, "error": None}, True
    records.write(folder, record)
    return _Start(record, trained=trained, checkpoint=find_checkpoint(folder / CHECKPOINTS))


def note_death(config: Config, command: str, reason: str) -> None:
    """Write into the record of a run whose process was killed that it failed, and why.

    Args:
        config: the run.
        command: the shell command that repeats it.
        reason: what is known of the process's end.

    Raises:
        BusyError: another process has taken the run over.
        RecordError: the record is there and cannot be read, or cannot be written.
    """
    config, tuning = resolve(config)
    folder = records.folder(config)
    with _locked(folder):
        path = folder / records.RECORD
        record = records.read(path) if path.exists() else records.new(config, command) | {"tuning": tuning}
        if record["status"] == "running":
            _close(folder, record, {"type": "KilledProcess", "message": reason, "traceback": ""})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / records.LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{folder}: another process is doing this run") from error
    except OSError as error:
        raise records.RecordError(f"{folder}: cannot write in the run's folder (results_dir): {error}") from error
    with lock:
        yield


def prepare(configs: Iterable[Config]) -> None:
    """See to what many runs share before the first one starts: the hub is there, the mini model is made.

    Raises:
        ModelError, DataError: a model or data set that no run could have.
    """
    silence_transformers()
    models_seen, tasks_seen = set(), set()
    for config in configs:
        model = repr(config.model)
        if model not in models_seen:
            models_seen.add(model)
            if config.model.source != "perceptron":
                models.locate(mini_models.located(resolve_device(config)))
        if config.data.source == "hub" and config.task.name not in tasks_seen:
            tasks_seen.add(config.task.name)
            if why_unreachable():
                inputs.read(config)


def resolve_device(config: Config) -> Config:
    """Replace ``train.device=auto`` and ``train.precision=auto`` by what they mean on this machine."""
    device = device_for(config.train.device)
    precision = precision_for(config.train.precision, device)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, device=device, precision=precision))


def resolve(config: Config) -> tuple[Config, dict[str, Any] | None]:
    """Replace ``train.lr=tuned``, ``train.device=auto`` and ``train.precision=auto`` by what they mean here.

    Returns:
        The configuration that the run's identity is made of, and how the learning rate was chosen.

    Raises:
        RecordError: the tuning runs are missing or unfinished.
    """
    config = resolve_device(config)
    if config.train.lr != TUNED:
        return config, None
    lr, tuning = selection.tuned_lr(Path(config.results_dir), config)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, lr=lr)), tuning


def _close(folder: Path, record: dict[str, Any], failure: dict[str, str] | None = None) -> None:
    """Write down that the run is done, or that it failed and why."""
    record["status"] = "failed" if failure else "done"
    record["finished"] = records.now()
    record["error"] = failure
    # Where another process failed, the launcher is about to end this one.
    with stop_signals(handed_on=True) if processes.launched() else nullcontext():
        records.write(folder, record)


def _failure(error: BaseException) -> dict[str, str]:
    """What a record keeps of an error."""
    trace = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": trace}


def _earlier_record(folder: Path) -> dict[str, Any] | None:
    path = folder / records.RECORD
    return records.read(path) if path.exists() else None


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing; nobody else writes here while the run's lock is held."""
    for name in (records.RECORD, *WEIGHTS.values()):
        for path in folder.glob(f".{name}.*"):
            path.unlink()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != records.LOCK:
            path.unlink()


def _run(config: Config, folder: Path, start: _Start, progress: bool) -> None:
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
    record["environment"] = {**costs.environment(), "processes": processes.count()}

    made = processes.from_first(lambda: mini_models.located(config))
    located = dataclasses.replace(config, model=made)
    if not processes.is_first():
        if not start.trained:
            _train_until_stopped(located, folder, start, tracking.Tracker(mode="disabled"), progress)
        return
    run_id = "/".join(str(part) for part in record["identity"].values())
    with _tracked(config, folder, record, run_id, start.trained or start.checkpoint is not None) as tracker:
        record["wandb"] = {"id": tracker.id, "mode": tracker.mode}
        if not start.trained:
            _train_until_stopped(located, folder, start, tracker, progress)
        processes.leave()
        if config.task.test:
            records.write(folder, record)
            _try_on_test_split(located, folder, record, progress)
        tracker.summary(bookkeeping.summary(record))
        _close(folder, record)


def _train_until_stopped(
    config: Config, folder: Path, start: _Start, tracker: tracking.Tracker, progress: bool
) -> None:
    """Train; a signal that any process gets stops all after the same update."""
    with stop_signals(handed_on=processes.launched()) as stop:
        try:
            _train(config, folder, start, tracker, lambda: processes.any_of(stop.requested()), progress)
        except InterruptedRun as interruption:
            interruption.signal = stop.number
            raise


def _train(
    config: Config,
    folder: Path,
    start: _Start,
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
    parts = processes.together(lambda: _adapted(config, record, progress))
    model = parts.model
    split, headline = config.evaluated[0], config.task.headline
    kept = _kept_weights(config)
    callbacks: list[TrainerCallback] = []
    if isinstance(config.method, RosaConfig):
        callbacks.append(ResampleCallback(seed=derive(config.seed, "subspace")))
    if processes.is_first():
        callbacks.insert(0, bookkeeping.RecordCallback(config.evaluated, config.task.metrics, folder, record, tracker))
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
        bookkeeping.finish(config, record, trainer)
        record["diagnostics"] = bookkeeping.diagnose(config, model, trainer.state.log_history)
        record["warnings"] = parts.scorer.warnings
        if "last" in kept:
            save_weights(model, folder / WEIGHTS["last"])
        return record

    record.update(processes.from_first(conclude))


def _adapted(config: Config, record: dict[str, Any], progress: bool) -> inputs.Inputs:
    """Load the model and the data, and attach the method, noting the facts in the record."""
    parts = inputs.gather(config)
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


def _selected(config: Config, folder: Path) -> Path:
    return folder / WEIGHTS[config.chosen_epoch]


def _try_on_test_split(config: Config, folder: Path, record: dict[str, Any], progress: bool) -> None:
    """Decode and score the test split with the selected weights, which training has left in the run's folder."""
    model, tokenizer, _ = models.load(config.model, config.task, config.seed)
    restore(model, config.method, _selected(config, folder))
    epoch = record["metrics"][config.chosen_epoch]["epoch"]
    record["generation"] = trial.on_test_split(config, model, tokenizer, folder, epoch, progress)
    record["warnings"] = [*record["warnings"], *trial.warnings(record["generation"])]
    if config.train.keep not in (config.chosen_epoch, "both"):
        _selected(config, folder).unlink()


def restore(model: nn.Module, method: MethodConfig, weights: Path) -> None:
    """Turn a pretrained model, in place, into the plain one that a run left behind in a file of weights.

    Raises:
        AdapterError: the file is of another method, rank or model.
    """
    attach(model, method, verbose=False)
    load_weights(model, weights)
    merge(model)
    model.eval()


@contextmanager
def _tracked(
    config: Config, folder: Path, record: dict[str, Any], run_id: str, resumed: bool
) -> Iterator[tracking.Tracker]:
    """A tracker for as long as the run takes, which keeps a copy of the record of a run that ends, well or not."""
    tracker = tracking.start(config, folder, run_id, resumed)
    code = 1
    try:
        yield tracker
        code = 0
        tracker.keep(folder / records.RECORD)
    except (KeyboardInterrupt, SystemExit, InterruptedRun):
        raise
    except BaseException as error:
        _close(folder, record, _failure(error))
        tracker.keep(folder / records.RECORD)
        raise
    finally:
        tracker.finish(code)
