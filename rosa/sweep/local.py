"""Do many runs on one machine, in worker processes: a live overview, a line for each run, and a summary."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rosa.config import TUNED
from rosa.errors import BusyError, ChangedRunError, InterruptedRun, RecordError, RosaError
from rosa.records import score
from rosa.records.summary import headline
from rosa.sweep.jobs import Job, labelled
from rosa.sweep.progress import Overview, counted, duration
from rosa.sweep.workers import Death, Workers
from rosa.utils import files
from rosa.utils.console import first_line

AGAIN_SECONDS = 2.0
"""Seconds between two checks of the runs that other processes are doing."""
POLL_SECONDS = 0.5
"""Seconds between two checks for a request to stop, and between two drawings of the overview."""


@dataclass(frozen=True)
class Result:
    """The outcome of a job."""

    job: Job
    status: str
    """One of :data:`rosa.sweep.progress.STATUSES`, or ``busy`` while another process is doing it."""
    line: str
    """The score, or the first line of the error."""
    seconds: float
    score: float = math.nan
    """The headline at the epoch that the run's selection chose; NaN without one."""
    again: str = ""
    """The command that does the run; empty for that of the job."""


def attempt(job: Job, threads: int) -> Result:
    """Do one run in this process and return its outcome; an error of the run is returned, not raised.

    Args:
        job: the run.
        threads: CPU threads if ``train.threads`` sets none; 0 keeps PyTorch's default.

    Raises:
        InterruptedRun: stopped by a signal.
    """
    from rosa.run import run

    start = time.perf_counter()
    config, reached = job.config, math.nan
    if threads and not config.train.threads:
        config = replace(config, train=replace(config.train, threads=threads))
    try:
        with environment(job.environment):
            outcome = run(config, job.command, progress=False, tuning=job.tuning)
        status = "skipped" if outcome.skipped else "done"
        line = "; ".join([headline(outcome.record), *(f"warning: {text}" for text in outcome.record["warnings"])])
        reached = score(outcome.record, config.chosen_epoch)
    except BusyError:
        status, line = "busy", "another process is doing it"
    except InterruptedRun:
        raise
    except Exception as error:  # one failing run must not stop the others
        status, line = "failed", first_line(type(error).__name__, str(error))
    return Result(job, status, line, time.perf_counter() - start, reached)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def run_job(job: Job, threads: int) -> Result:
    """Do one run as :func:`attempt` does, but return an interruption as an outcome as well."""

    start = time.perf_counter()
    try:
        return attempt(job, threads)
    except (InterruptedRun, KeyboardInterrupt):
        return Result(job, "interrupted", "asked to stop", time.perf_counter() - start)


# --- placement of runs -----------------------------------------------------------------------------------------------


def places(at_once: int, jobs: int, cores: int, gpus: Sequence[str]) -> tuple[list[dict[str, str]], int]:
    """The environment variables of each process, and the CPU threads of each run, such that cores are not shared.

    Args:
        at_once: parallel runs; 0 means one for each GPU, or one for each core without GPUs.
        jobs: number of runs, an upper bound on the processes.
        cores: CPU cores.
        gpus: ``CUDA_VISIBLE_DEVICES`` entries; each process sees one, and processes share a GPU only if
            ``at_once`` exceeds the number of GPUs.
    """
    count = min(at_once or len(gpus) or cores, jobs) or 1
    threads = max(cores // count, 1)
    # Threads of the tokenizers; PyTorch's are set in each run.
    shared = {"RAYON_NUM_THREADS": str(threads)}
    if not gpus:
        return [dict(shared) for _ in range(count)], threads
    return [shared | {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} for place in range(count)], threads


def visible_gpus() -> list[str]:
    """The ``CUDA_VISIBLE_DEVICES`` entries of the GPUs that PyTorch sees; empty without a GPU."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]


# --- the sweep -------------------------------------------------------------------------------------------------------


def run_all(jobs: Sequence[Job], at_once: int, searched: Collection[str] = ()) -> list[Result]:
    """Do all runs, several at a time, and print a line for each.

    A run whose process is killed has failed; the other runs go on. A run that another process is working on is tried
    again at the end. On Ctrl-C, on SIGTERM, and on a failure with ``train.fail_fast``, the runs in progress write a
    checkpoint, and no further run starts.

    Args:
        jobs: the runs; finished ones are skipped, interrupted ones are resumed.
        at_once: see :func:`places`.
        searched: keys that vary in the search of which these runs are a part.

    Returns:
        The outcomes, in the order in which the runs ended.
    """
    jobs, ended = without_finished(with_learning_rates(labelled(jobs, searched)))
    with _stopping() as stopping:
        if not jobs:
            return Schedule([], None, stopping, ended).work_off()
        with _workers(jobs, at_once) as work:
            return Schedule(jobs, work, stopping, ended).work_off()


def _workers(jobs: Sequence[Job], at_once: int) -> Workers[Job, Result]:
    """Check the runs, pretrain the models that they share, and create the worker processes."""
    import multiprocessing

    refuse_unwritable_results(jobs)
    from rosa.run.prepare import prepare

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = visible_gpus() if any(job.config.train.device != "cpu" for job in jobs) else []
    environments, threads = places(at_once, len(jobs), cores, gpus)
    # CUDA cannot be used after a fork, and an import may have initialized it.
    forking = not gpus and "forkserver" in multiprocessing.get_all_start_methods()
    method = "forkserver" if forking else "spawn"
    work: Workers[Job, Result] = Workers(partial(run_job, threads=threads), environments, method, ["rosa.run.pipeline"])
    prepare(job.config for job in jobs)
    return work


def refuse_unwritable_results(jobs: Iterable[Job]) -> None:
    """Refuse runs that could not write their records, before anything is imported or made for them.

    Raises:
        OutputError: the message names the folder.
    """
    for results_dir in dict.fromkeys(job.config.results_dir for job in jobs):
        files.refuse_unwritable(Path(results_dir), "results_dir=")


def without_finished(jobs: Sequence[Job]) -> tuple[list[Job], list[Result]]:
    """The runs that are left to do, and the outcomes of the others: finished before, or refused as another run.

    Takes milliseconds for each run: nothing is set up, and PyTorch is not loaded on a machine without a GPU's driver.
    """
    from rosa.run.device import resolve_device
    from rosa.run.earlier import Inputs, finished

    left: list[Job] = []
    ended: list[Result] = []
    inputs = Inputs()
    for job in tqdm(jobs, desc="looking for finished runs", unit="run", leave=False, delay=1):
        try:
            record = finished(resolve_device(job.config), inputs) if job.config.train.lr != TUNED else None
        except RosaError as error:
            # The existing folder cannot be resumed, so the run's own command would be refused again.
            over = f"{job.command} train.force=true" if isinstance(error, (ChangedRunError, RecordError)) else ""
            ended.append(Result(job, "failed", first_line(type(error).__name__, str(error)), 0.0, again=over))
            continue
        if record is None:
            left.append(job)
        else:
            ended.append(Result(job, "skipped", headline(record), 0.0, score(record, job.config.chosen_epoch)))
    return left, ended


def with_learning_rates(jobs: Sequence[Job]) -> list[Job]:
    """Look up each ``train.lr=tuned``; a job whose learning rate cannot be chosen is not changed, and fails later."""
    from rosa.records.selection import Grids
    from rosa.run.device import resolve

    grids = {job.config.results_dir: Grids(Path(job.config.results_dir)) for job in jobs}
    found = []
    for job in jobs:
        if job.config.train.lr == TUNED:
            with contextlib.suppress(RecordError):
                config, tuning = resolve(job.config, grids[job.config.results_dir])
                train = replace(job.config.train, lr=config.train.lr)
                job = replace(job, config=replace(job.config, train=train), tuning=tuning)
        found.append(job)
    return found


class Stopping:
    """Counts the requests to stop: after the first, runs checkpoint and stop; after the second, they are killed."""

    def __init__(self) -> None:
        self.asked = 0


@contextmanager
def _stopping() -> Iterator[Stopping]:
    stopping = Stopping()

    def ask(*_: Any) -> None:
        stopping.asked += 1

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class Schedule:
    """Starts the runs in order and handles their results.

    Args:
        jobs: the runs.
        workers: the processes; None where there is nothing to do.
        ended: outcomes that are known before.
        stopping: raised by a signal, or here by a failure with ``train.fail_fast``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: Workers[Job, Result] | None,
        stopping: Stopping,
        ended: Sequence[Result] = (),
    ) -> None:
        self.workers = workers
        self.stopping = stopping
        self.waiting = deque(jobs)
        self.elsewhere: list[Job] = []
        """Runs that another process is doing now."""
        self.met_elsewhere: set[str] = set()
        """The commands of all runs that another process was doing, including those that have ended since."""
        self.results: list[Result] = []
        self.overview = Overview(len(jobs) + len(ended))
        self._heard = 0
        self._again_at = 0.0
        self.width = max((len(job.label) for job in jobs), default=0)
        for result in ended:
            self._ended(result)

    def work_off(self) -> list[Result]:
        """Do all runs; return the outcomes in the order in which the runs ended."""
        while self.workers and (self.waiting or self.elsewhere or self.workers.busy):
            self._heed_stop()
            if self.elsewhere and not self.waiting and time.monotonic() >= self._again_at:
                self.waiting.extend(self.elsewhere)
                self.elsewhere.clear()
            while self.waiting and self.workers.free:
                self.workers.start(self.waiting.popleft())
            self.overview.show(self.workers.busy, len(self.elsewhere))
            for job, answer in self.workers.finished(POLL_SECONDS):
                self._ended(self._dead(job, answer) if isinstance(answer, Death) else answer)
        self.overview.close()
        return self.results

    def _heed_stop(self) -> None:
        if self.stopping.asked == self._heard:
            return
        self._heard = self.stopping.asked
        for job in (*self.waiting, *self.elsewhere):
            self._ended(Result(job, "not started", "", 0.0))
        self.waiting.clear()
        self.elsewhere.clear()
        if self.workers is None:
            return
        if self.stopping.asked == 1:
            self.workers.ask_to_stop()
        else:
            self.workers.kill()

    def _dead(self, job: Job, death: Death) -> Result:
        from rosa.run.folder import note_death

        if self.stopping.asked:
            return Result(job, "interrupted", "asked to stop", 0.0)
        line = str(death)
        try:
            note_death(job.config, job.command, line)
        except (BusyError, RecordError) as error:
            line += f"; its record does not say so: {error}"
        return Result(job, "failed", line, 0.0)

    def _ended(self, result: Result) -> None:
        job = result.job
        if result.status == "busy":
            self.met_elsewhere.add(job.command)
            if not self.stopping.asked:
                self.elsewhere.append(job)
                self._again_at = time.monotonic() + AGAIN_SECONDS
                return
            result = replace(result, status="not started")
        elif result.status == "skipped" and job.command in self.met_elsewhere:
            result = replace(result, status="elsewhere")
        self.results.append(result)
        line = ""
        if result.status not in ("skipped", "not started"):
            line = f"{result.status:11} {job.label:{self.width}}  {result.line}  ({result.seconds:.1f} s)"
        self.overview.ended(result.status, line)
        if result.status == "failed" and job.config.train.fail_fast and not self.stopping.asked:
            self.stopping.asked = 1


def summarize(results: Sequence[Result], seconds: float) -> str:
    """The number of runs by outcome, and for each failure its error and the command that repeats it.

    Args:
        results: the outcomes.
        seconds: how long the runs took together.
    """
    counts = Counter(result.status for result in results)
    return "\n".join(
        [
            f"{len(results)} runs in {duration(seconds)}: {counted(counts, ('done', 'skipped', 'failed'))}",
            *remarks(
                counts,
                [(result.line, result.again or result.job.command) for result in results if result.status == "failed"],
                forced=any(result.job.config.train.force for result in results),
            ),
        ]
    )


def remarks(counts: Mapping[str, int], failures: Sequence[tuple[str, str]], forced: bool) -> list[str]:
    """The lines of a summary below the counts: explanations, and the error and command of each failure.

    Args:
        counts: runs by status.
        failures: the error and the command of each.
        forced: whether the runs were to start over (``train.force``).
    """
    lines = []
    if counts.get("skipped") and counts["skipped"] == sum(counts.values()):
        lines.append("every run was already finished (train.force=true starts over)")
    if counts.get("elsewhere"):
        lines.append(f"elsewhere: another process did {counts['elsewhere']} of these runs")
    for line, command in failures:
        lines += [f"failed: {line}", f"  again: {command}"]
    if counts.get("interrupted") or counts.get("not started"):
        if forced:
            lines.append(
                "stopped early: run the same command without train.force=true to resume; it keeps every finished run, "
                "earlier ones too"
            )
        else:
            lines.append("stopped early: run the same command again to resume")
    return lines
