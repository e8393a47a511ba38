"""Hydra's plugins of this project: the sweeper of its grids, and the launcher of runs on this machine.

Hydra imports every module of the namespace ``hydra_plugins`` that it finds, so nothing slow is imported at the top. The
namespace lies beside ``train.py``, where Python finds it with no installation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from rosa.sweep.jobs import Job
    from rosa.sweep.local import Result
    from rosa.sweep.status import Run

CONF = Path(__file__).resolve().parents[2] / "conf"
FINISHED = ("done", "skipped", "elsewhere")
"""The statuses of a run that has a score."""


class Ended(JobReturn):
    """A run's outcome as Hydra's sweepers read it; ``return_value`` is the selected score, for one that searches.

    Args:
        result: the outcome.
        overrides: of the run.
    """

    # No dataclass: Hydra executes this module before it has a place in sys.modules, where dataclasses look for it.
    def __init__(self, result: Result, overrides: Sequence[str]) -> None:
        from rosa.errors import FailedRun

        super().__init__(overrides=list(overrides), task_name="train")
        self.result = result
        if result.status in FINISHED:
            self.status, self.return_value = JobStatus.COMPLETED, result.score
        else:
            again = result.again or result.job.command
            self.status, self.return_value = JobStatus.FAILED, FailedRun(f"{result.line}; again: {again}")


class GridSweeper(Sweeper):
    """Does all combinations of the values that a command and its experiments' files give; composes no cell itself.

    Args:
        max_batch_size: cells that are handed to the launcher at a time; None: all.
        params: the values in the experiment's file.
        where: other values for some of its cells, by conditions; see :func:`rosa.sweep.grid.cells`.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, str] | None = None,
        where: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.params = params or {}
        self.where = where or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra calls it.

        Raises:
            ConfigError: torchrun has started this process, or ``max_batch_size`` is no size.
        """
        from hydra.core.plugins import Plugins

        from rosa.sweep.refusals import refuse_batch_size, refuse_processes

        refuse_processes()
        refuse_batch_size(self.max_batch_size)
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Do the runs, and print a summary.

        Raises:
            ConfigError, DataError, ModelError: a run is invalid; none has been done.
            SystemExit: a run failed, or is not done.
        """
        from rosa.sweep.local import refuse_unwritable_results, summarize
        from rosa.sweep.refusals import refuse_fail_fast

        grid = self._cells(arguments)
        handed_on = not isinstance(self.launcher, LocalLauncher)
        batches = range(0, len(grid), self.max_batch_size or len(grid))
        # Composed here as well as by the launcher: errors must not come from a queue, or after a batch of runs.
        planned = composed(self.hydra_context, self.config, grid, 0) if handed_on or len(batches) > 1 else []
        refuse_unwritable_results(planned)
        if handed_on:
            refuse_fail_fast(planned)
        returned: list[Sequence[JobReturn]] = []
        start_time = time.perf_counter()
        with failed_jobs_told():
            for start in batches:
                returned.append(self.launcher.launch(grid[start : start + batches.step], initial_job_idx=start))
        if handed_on:
            done = after_launch(planned)
        else:
            results = [one.result for batch in returned for one in batch if isinstance(one, Ended)]
            print(summarize(results, time.perf_counter() - start_time), flush=True)
            done = all(result.status in FINISHED for result in results)
        if not done:
            raise SystemExit(1)
        return returned

    def _cells(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each cell."""
        from hydra.types import RunMode

        from rosa.sweep.grid import by_experiment, cells, fixed, typed

        loader = self.hydra_context.config_loader
        sweeps = by_experiment(arguments, loader)
        if sweeps == [list(arguments)]:  # the file's values are those that Hydra has composed
            return cells(self.params, sweeps[0], loader, self.where)
        grid = []
        for words in sweeps:
            shared = loader.load_configuration(
                self.config.hydra.job.config_name,
                [*typed(self.config.hydra.overrides.hydra), *fixed(words, loader)],
                RunMode.MULTIRUN,
            )
            sweeper = shared.hydra.sweeper
            grid += cells(sweeper.params or {}, words, loader, sweeper.get("where"))
        return grid


class LocalLauncher(Launcher):
    """Does runs on this machine, several at a time, each in a process of its own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra calls it; the runs are done by :func:`rosa.run.run`, not by ``task_function``.

        Raises:
            ConfigError: torchrun has started this process.
        """
        from rosa.sweep.refusals import refuse_processes

        refuse_processes()
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Compose and do runs; a failed one is returned as such.

        Raises:
            ConfigError, DataError, ModelError: a run is invalid; none has been done.
            SystemExit: stopped by a signal or ``train.fail_fast``, after a summary: a search would go on with its next
                trial, and a sweep with its next batch.
        """
        from rosa.sweep.grid import typed
        from rosa.sweep.local import run_all, summarize
        from rosa.sweep.refusals import SWEEP_FOLDER, refuse_folders, refuse_job_callbacks, refuse_wrong_direction
        from rosa.utils.files import refuse_unwritable

        sweeper = self.config.hydra.sweeper
        searches = sweeper._target_ != f"{GridSweeper.__module__}.{GridSweeper.__name__}"
        if not searches:
            refuse_folders(typed(self.config.hydra.overrides.hydra), SWEEP_FOLDER)
        refuse_job_callbacks(self.hydra_context.callbacks.callbacks)
        jobs = composed(self.hydra_context, self.config, job_overrides, initial_job_idx)
        searched = swept_keys(self.config) if searches else ()
        for job in jobs if searches else ():
            refuse_wrong_direction(job.config, sweeper.get("direction"))
        start = time.perf_counter()
        if searches:  # as Hydra's own launcher does: sweepers write their results there, and do not make it
            folder = Path(str(self.config.hydra.sweep.dir))
            refuse_unwritable(folder, "hydra.sweep.dir=")
            folder.mkdir(parents=True, exist_ok=True)
        results = run_all(jobs, jobs[0].config.jobs, searched)
        if any(stops(result) for result in results):
            print(summarize(results, time.perf_counter() - start), flush=True)
            raise SystemExit(1)
        by_number = {result.job.number: result for result in results}
        return [Ended(by_number[job.number], words) for job, words in zip(jobs, job_overrides, strict=True)]


def stops(result: Result) -> bool:
    """Whether no further run is to begin after this one."""
    failed_fast = result.status == "failed" and result.job.config.train.fail_fast
    return failed_fast or result.status in ("interrupted", "not started")


def composed(context: HydraContext, master: DictConfig, grid: Sequence[Sequence[str]], start: int) -> list[Job]:
    """The jobs of cells, composed with a bar.

    Args:
        context: Hydra's.
        master: what the cells share, composed.
        grid: the overrides of each cell.
        start: number of the first cell in its sweep.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: a cell's configuration is invalid, or two share a folder.
    """
    from tqdm import tqdm

    from rosa.sweep.grid import Composer, job, options
    from rosa.sweep.refusals import refuse_shared_folders

    preflight(master)
    composer = Composer(partial(context.config_loader.load_sweep_config, master))
    repeated = options(master.hydra, CONF)
    jobs = []
    with tqdm(
        grid, desc="composing", unit="run", leave=False
    ) as bar:  # gone from the screen before an error is printed
        for number, words in enumerate(bar, start):
            config, hydra = composer(words, number)
            jobs.append(job(words, config, hydra, repeated, number))
    refuse_shared_folders(jobs)
    return jobs


def preflight(master: DictConfig) -> None:
    """Check that the model and the data shared by all runs of a sweep are available, before its cells are composed.

    Raises:
        ModelError, DataError: the hub is needed and cannot be reached.
    """
    from omegaconf.errors import OmegaConfBaseException

    from rosa.config import from_hydra
    from rosa.errors import ConfigError
    from rosa.sweep.grid import without_hydra
    from rosa.utils.console import silence_transformers

    try:
        config = from_hydra(without_hydra(master))
    except (ConfigError, OmegaConfBaseException):
        return  # a swept value completes the configuration, or composing a cell reports the error
    if "hub" in (config.model.source, config.data.source):
        print("looking for the model and the data", file=sys.stderr, flush=True)  # the imports take seconds
        from rosa.run.prepare import reach

        silence_transformers()
        reach([config])


def swept_keys(master: DictConfig) -> set[str]:
    """The keys that a search varies."""
    from rosa.sweep.grid import parse, typed

    params = master.hydra.sweeper.get("params") or {}
    swept = [one.key_or_group for one in parse(typed(master.hydra.overrides.task)) if one.is_sweep_override()]
    return {*swept, *map(str, params)}


def after_launch(jobs: Sequence[Job]) -> bool:
    """Print the outcome of runs that another launcher started, from their records; whether all are done."""
    from rosa.sweep.jobs import command
    from rosa.sweep.status import asked_for, table, to_do

    runs: dict[int, Run] = {}
    for results_dir in dict.fromkeys(job.config.results_dir for job in jobs):
        there = [job for job in jobs if job.config.results_dir == results_dir]
        states = asked_for(there, Path(results_dir))
        runs |= {job.number: run for job, run in zip(there, states, strict=True)}
    groups: dict[str, list[Run]] = {}
    for job in jobs:
        groups.setdefault(job.config.experiment_name, []).append(runs[job.number])
    print("\n".join([*table(groups), *to_do([runs[job.number] for job in jobs], command(sys.argv[1:]))]))
    return all(run.state == "done" for run in runs.values())


@contextmanager
def failed_jobs_told() -> Iterator[None]:
    """Print what submitit raises for a job that failed or was not queued; the records tell about the runs."""
    try:
        yield
    except RuntimeError as error:
        if "submitit" not in sys.modules:
            raise
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        if not isinstance(error, (FailedSubmissionError, UncompletedJobError)):
            raise
        print(f"error: {error}", file=sys.stderr)
