"""The folder of a run: its lock, its earlier record, and how its record is closed."""

from __future__ import annotations

import os
import shutil
import traceback
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rosa import records
from rosa.config import Config
from rosa.errors import BusyError, WriteError
from rosa.records import Record
from rosa.records.schema import Failure, Tuning
from rosa.run.device import resolve
from rosa.run.earlier import CHECKPOINTS, ELSEWHERE, Inputs, read_earlier, refuse_other_run
from rosa.training import find_checkpoint
from rosa.training.signals import stop_signals
from rosa.utils import distributed, files

WEIGHTS = {rule: f"{rule}.safetensors" for rule in records.RULES}
"""File names of the weights in a run's folder, by epoch."""

FORCED = ".forced"
"""The file in a run's folder that names the job which restarted the run because of ``train.force``."""
RESTARTS = {"SLURM_RESTART_COUNT": "SLURM_JOB_ID", "TORCHELASTIC_RESTART_COUNT": "TORCHELASTIC_RUN_ID"}
"""Environment variables: how often a batch system or torchrun has restarted this job, and the job's name."""


GLANCE_SECONDS = 1.0
"""Seconds after which a lock is held by a process that works on the run, and not by one that looks at it."""


@dataclass(frozen=True)
class Start:
    """The state of a run when it starts, sent by the main process, which holds the lock, to the others."""

    record: Record
    done: bool = False
    trained: bool = False
    """True if training was finished when an earlier call was stopped; only the test split remains."""
    checkpoint: Path | None = None
    """The checkpoint to resume from."""


def begin(config: Config, tuning: Tuning | None, command: str, folder: Path, held: ExitStack) -> Start:
    """Take the run's lock until ``held`` closes, read its earlier record, and mark the run as running.

    Raises:
        BusyError: another process is working on this run.
        ChangedRunError: the existing run was made with other settings, data or weights.
        CheckpointError: a checkpoint cannot be read.
        WriteError: an earlier run's files cannot be removed.
    """
    held.enter_context(locked(folder))
    _remove_unfinished(folder)
    forced = config.train.force and not _forced_by_this_job(folder)
    # What lies in a folder without a record may be of another run: all that a clearing left that was killed.
    if forced or not (folder / records.RECORD).exists():
        with files.writing(folder, WriteError):
            _clear(folder)
            if config.train.force:
                (folder / FORCED).write_text(_job(), encoding="utf-8")
    earlier, checkpoint = _earlier_record(folder), find_checkpoint(folder / CHECKPOINTS)
    weights = config.task.test and selected_weights(config, folder).is_file()
    trained = earlier is not None and bool(earlier["metrics"]) and bool(weights)
    # Whatever is taken over must be of this run: a result, a checkpoint, or weights that only the test split lacks.
    if earlier is not None and (earlier["status"] == "done" or checkpoint or trained):
        refuse_other_run(earlier, config, folder, Inputs())
    if earlier is not None and earlier["status"] == "done":
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # killed between its last record and their removal
        return Start(earlier, done=True)
    record = records.new(config, command, tuning)
    if earlier is not None and trained:
        record = earlier
        record |= {"status": "running", "finished": None, "error": None}
    elif earlier is not None and checkpoint:
        elsewhere = [text for text in earlier["warnings"] if text.startswith(ELSEWHERE)]
        record |= {"started": earlier["started"], "environment": earlier["environment"], "warnings": elsewhere}
    records.write(folder, record)
    return Start(record, trained=trained, checkpoint=checkpoint)


def note_death(config: Config, command: str, reason: str) -> None:
    """Mark a run whose process was killed as failed in its record, with the reason.

    Args:
        config: the run.
        command: the shell command that repeats it.
        reason: how the process ended.

    Raises:
        BusyError: another process has taken the run over.
        RecordError: the existing record cannot be read, or the new one cannot be written.
    """
    config, tuning = resolve(config)
    folder = records.folder(config)
    with locked(folder):
        path = folder / records.RECORD
        record = records.read(path) if path.exists() else records.new(config, command, tuning)
        if record["status"] == "running":
            close(folder, record, {"type": "KilledProcess", "message": reason, "traceback": ""})


def locked(folder: Path) -> AbstractContextManager[None]:
    """The lock of a run's folder; the folder is created if missing.

    A process that only looks whether the run is in progress (``scripts/status.py``) holds it for a moment, and that is
    no reason to refuse the run.
    """
    return files.locked(
        folder / records.LOCK,
        BusyError(f"{folder}: another process is working on this run; wait until it ends, or stop it"),
        lambda error: records.RecordError(f"{folder}: cannot write in the run's folder (results_dir): {error}"),
        patience=GLANCE_SECONDS,
    )


def close(folder: Path, record: Record, failure: Failure | None = None) -> None:
    """Write the final record: the run is done, or it failed and why."""
    record["status"] = "failed" if failure else "done"
    record["finished"] = records.now()
    record["error"] = failure
    # If another process failed, the launcher is about to end this one.
    with stop_signals(handed_on=True) if distributed.launched() else nullcontext():
        records.write(folder, record)


def failure(error: BaseException) -> Failure:
    """The ``error`` entry of a record for an error."""
    trace = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": trace}


def _earlier_record(folder: Path) -> Record | None:
    path = folder / records.RECORD
    return read_earlier(path) if path.exists() else None


def _forced_by_this_job(folder: Path) -> bool:
    """Whether this job already restarted the run and was requeued afterwards, so that it must resume."""
    again = any(int(os.environ.get(count) or 0) for count in RESTARTS)
    mark = folder / FORCED
    return again and mark.is_file() and mark.read_text(encoding="utf-8") == _job()


def _job() -> str:
    return "/".join(os.environ.get(name, "") for name in RESTARTS.values())


def _remove_unfinished(folder: Path) -> None:
    """Remove partial files of a killed process; the caller holds the run's lock, so no other process writes here."""
    for name in (records.RECORD, *WEIGHTS.values()):
        for path in folder.glob(f".{name}.*"):
            path.unlink()


def _clear(folder: Path) -> None:
    """Remove everything but the lock, in an order in which a kill leaves a whole run, or one that starts over.

    The checkpoints go before the record, without which nothing says what they were made from; the weights and the
    texts after it, as a record without them would count as finished.
    """
    order = (CHECKPOINTS, records.RECORD)
    for path in sorted(folder.iterdir(), key=lambda path: order.index(path.name) if path.name in order else len(order)):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != records.LOCK:
            path.unlink()


def selected_weights(config: Config, folder: Path) -> Path:
    """The file with the weights of the epoch that the run's selection chose."""
    return folder / WEIGHTS[config.chosen_epoch]
