"""The state of experiments, from their records: runs done, failed, running, interrupted and missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rosa import records
from rosa.config import AUTO_PRECISIONS, TUNED, Config
from rosa.errors import BusyError, OutputError
from rosa.records import Record, selection
from rosa.sweep.jobs import Job
from rosa.utils import files
from rosa.utils.console import first_line
from rosa.utils.formatting import aligned

STATES = ("done", "failed", "running", "stopped", "missing")
"""The states of a run. ``stopped``: its record says ``running``, but no process is working on it."""


@dataclass(frozen=True)
class Run:
    """A run and its state."""

    name: str
    state: str
    line: str
    """The first line of the error that stopped it; empty in other states."""
    command: str
    """The shell command that does or repeats the run."""
    active: str = ""
    """The last time at which the run is known to have been active, in UTC."""


def in_progress(folder: Path) -> bool:
    """Whether a process is working on the run of this folder."""
    lock = folder / records.LOCK
    try:
        if lock.exists():
            with files.locked(lock, BusyError(str(lock)), lambda error: OutputError(f"{lock}: {error}")):
                pass
    except BusyError:
        return True
    except OutputError:
        return False  # a process that is working on the run can write here
    return False


def run_of(path: Path, record: Record) -> Run:
    """The state of a run that has a record, in the file ``path``; a copied folder need not be named by its run."""
    state, active = str(record["status"]), record["finished"] or record["started"]
    if state == "running":
        state = "running" if in_progress(path.parent) else "stopped"
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        active = written.isoformat(timespec="seconds")
    return Run(records.describe(record), state, records.error_line(record), record["command"], active)


def asked_for(jobs: Iterable[Job], results_dir: Path) -> Iterator[Run]:
    """The state of each run of a sweep, including runs without a record.

    Args:
        jobs: the sweep's runs.
        results_dir: the folder that contains ``runs/``; committed records are not counted as runs.
    """
    found, _ = records.locate(results_dir, evidence="none")
    there = {records.order_key(record): (path, record) for path, record in found.items()}
    grids = selection.Grids(results_dir)
    for job in jobs:
        reason, match = "", None
        for config in _meanings(job.config):
            try:
                config = _tuned(config, grids)
            except records.RecordError as error:
                reason = first_line("RecordError", str(error))
                continue
            match = there.get(tuple(records.identity(config).values()))
            if match is not None:
                break
        if match is not None:
            yield run_of(*match)
        else:
            run = records.identity(job.config)
            name = f"run {run['experiment']}/{run['model']}/{run['task']}/{run['method']} seed {run['seed']}"
            yield Run(name, "missing", reason, job.command)


def _meanings(config: Config) -> Iterator[Config]:
    """The configurations that ``train.precision=auto`` can resolve to; the run may be from another machine."""
    for precision in AUTO_PRECISIONS if config.train.precision == "auto" else (config.train.precision,):
        yield replace(config, train=replace(config.train, precision=precision))


def _tuned(config: Config, grids: selection.Grids) -> Config:
    """Replace ``train.lr=tuned`` by the selected learning rate."""
    if config.train.lr != TUNED:
        return config
    return replace(config, train=replace(config.train, lr=grids.tuned_lr(config)[0]))


def elsewhere(jobs: Sequence[Job], runs: Sequence[Run], results_dir: Path) -> list[str]:
    """A line for each experiment whose runs are missing but that has others, which were made with other settings.

    Args:
        jobs: the sweep's runs.
        runs: their states, from :func:`asked_for`.
        results_dir: as there.
    """
    lines = []
    for experiment in dict.fromkeys(job.config.experiment_name for job in jobs):
        mine = [run for job, run in zip(jobs, runs, strict=True) if job.config.experiment_name == experiment]
        if all(run.state != "missing" for run in mine):
            continue
        there, _ = records.find(results_dir, experiment, evidence="none")
        names = {run.name for run in mine if run.state != "missing"}
        others = [record for record in there if records.describe(record) not in names]
        if others:
            lines.append(
                f"{len(others)} runs of {experiment} with other settings are there, such as: {others[0]['command']}"
            )
    return lines


def table(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """A line for each experiment: the number of runs in each state, and the time of the last change."""
    shown = [state for state in STATES if any(run.state == state for group in runs.values() for run in group)]
    rows = [("experiment", "runs", *shown, "last activity (UTC)")]
    for name, group in runs.items():
        counts = Counter(run.state for run in group)
        last = max((run.active for run in group), default="")
        numbers = [str(counts[state]) if counts[state] else "-" for state in shown]
        rows.append((name, str(len(group)), *numbers, last.removesuffix("+00:00").replace("T", " ") or "-"))
    return aligned(rows)


def to_do(runs: Sequence[Run], sweep: str = "") -> list[str]:
    """The runs that are neither done nor running: the reason, and the command that does each.

    Args:
        runs: runs in any state.
        sweep: the command of the whole sweep, which also does the missing runs.
    """
    lines = []
    for run in runs:
        if run.state in ("failed", "stopped"):
            lines += [f"{run.state}: {run.name}" + (f": {run.line}" if run.line else ""), f"  again: {run.command}"]
    missing = Counter(run.line for run in runs if run.state == "missing")
    lines += [f"missing: {count} runs" + (f": {reason}" if reason else "") for reason, count in missing.items()]
    if missing:
        lines.append(f"  all of them: {sweep}")
    return lines
