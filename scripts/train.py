#!/usr/bin/env python
"""Train: one run, or with -m a sweep; under torchrun, one run on several GPUs.

python scripts/train.py task=cola model=minilm data=local data.dir=DIR method=rosa method.rank=8 seed=0
python scripts/train.py -m experiment=glue_mini
torchrun --standalone --nproc-per-node=2 scripts/train.py task=mnli model=roberta-base data=hub method=rosa
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from rosa.config import Config, from_hydra, register
from rosa.config.explain import explained
from rosa.config.overrides import readable
from rosa.errors import ConfigError
from rosa.records import RECORD, run_folder
from rosa.records.summary import summary
from rosa.run.device import resolve
from rosa.run.earlier import Inputs, finished
from rosa.sweep.jobs import Job, Request, command, expand, hydra_settings, preflight, refuse_half_a_sweep, request
from rosa.sweep.local import Result, run_all
from rosa.sweep.slurm import run_as_job
from rosa.sweep.status import asked_for, table, to_do
from rosa.utils.console import run_command
from rosa.utils.distributed import is_main, launched

CONF = Path(__file__).resolve().parent.parent / "conf"
LOCAL_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
GRID_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's default sweeper. It composes each run twice and does one after the other; this script composes them itself,
once, and does several at a time."""

alone: list[Job] = []
"""The run that was asked for without ``-m``, done when Hydra has ended."""
refused: list[ConfigError] = []
"""Errors of requested runs; raised after Hydra ends, since Hydra would print further lines."""


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def compose(composed: DictConfig) -> Result | float | None:
    """Take the composed run, and do it if one of Hydra's launchers or sweepers asks for it.

    Returns:
        The run's outcome, for a launcher; its selected score, for a sweeper that searches.
    """
    context = HydraConfig.get()
    try:
        config = from_hydra(composed)
        if context.mode == RunMode.MULTIRUN and context.sweeper._target_ != GRID_SWEEPER:
            refuse_wrong_direction(config, str(context.sweeper.get("direction") or ""))
    except ConfigError as error:
        refused.append(error)
        if context.mode == RunMode.MULTIRUN:
            raise  # a sweeper would go on to the next run
        return None
    job = Job(config, command(context.overrides.task, request(sys.argv[1:]).config_dir))
    if context.mode == RunMode.RUN:
        alone.append(job)
        return None
    result = run_as_job(job)
    return result if context.sweeper._target_ == GRID_SWEEPER else result.score


def refuse_wrong_direction(config: Config, direction: str) -> None:
    """Refuse a search for the lowest score of a task whose headline is the better the higher it is, or the reverse."""
    better = "minimize" if config.task.lower_is_better else "maximize"
    asked = direction.rpartition(".")[2]
    if asked in ("minimize", "maximize") and asked != better:
        raise ConfigError(
            f"hydra.sweeper.direction={asked} with task={config.task.name}: its headline {config.task.headline} is the "
            f"better the {'lower' if config.task.lower_is_better else 'higher'}; use hydra.sweeper.direction={better}"
        )


def main() -> int:
    """Do the run or the sweep; return the exit status, 1 if a run of a sweep failed."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing its own trace
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rosa").setLevel(logging.INFO)
    register()
    sys.argv[1:] = readable(sys.argv[1:])
    asked = request(sys.argv[1:])
    if asked.multirun and launched():
        raise ConfigError(
            "-m under torchrun: its processes all work on a single run; leave -m out, or start the sweep without "
            "torchrun, which gives each run its own GPU"
        )
    with explained(CONF, asked.overrides):
        settings = None if asked.other else hydra_settings(CONF, asked)
        if asked.multirun and not asked.other:
            preflight(CONF, asked)
            if is_local(settings):
                return sweep(asked)
        elif not asked.other:
            refuse_half_a_sweep(settings, asked)
    try:
        with explained(CONF, asked.overrides):
            compose()
    except RuntimeError as error:
        if not is_failed_job(error):
            raise
        print(f"error: {error}", file=sys.stderr)
    if refused:
        raise refused[0]
    if not asked.multirun or asked.other:
        return run_alone(alone[0]) if alone else 0  # no job: Hydra printed its help or the configuration
    searched = settings is not None and settings.sweeper._target_ != GRID_SWEEPER
    return after_search(settings) if searched else after_launch(asked)


def is_local(settings: DictConfig | None) -> bool:
    """Whether a sweep's runs are a grid, done on this machine.

    Raises:
        ConfigError: a folder for a local sweep, which has none.
    """
    if settings is None:  # an experiment that is swept over, or an error that composing the runs explains
        return True
    local = settings.launcher._target_ == LOCAL_LAUNCHER and settings.sweeper._target_ == GRID_SWEEPER
    chosen = [word for word in settings.overrides.hydra if word.startswith(("hydra.sweep.", "hydra.run."))]
    if local and chosen:
        raise ConfigError(
            f"{chosen[0]}: a run's folder is its identity, under results_dir; only launchers and sweepers that are "
            "plugins write to hydra.sweep.dir"
        )
    return local


def sweep(asked: Request) -> int:
    """Compose the runs of a sweep, with a bar, and do them on this machine; return the exit status."""
    jobs: list[Job] = []
    seen: set[str] = set()
    with tqdm(desc="composing", unit="run", leave=False) as bar:
        for job, total in expand(CONF, asked):
            if job.config.experiment_name not in seen:
                seen.add(job.config.experiment_name)
                bar.total = len(jobs) + total
            jobs.append(job)
            bar.update()
    results = run_all(jobs, jobs[0].config.jobs)
    return 0 if all(result.status in ("done", "skipped", "elsewhere") for result in results) else 1


def run_alone(job: Job) -> int:
    """Do one run, and print its scores and the path of its record."""
    record = None if launched() else finished(resolve(job.config)[0], Inputs())
    if record is not None:  # found without loading PyTorch
        print(summary(record))
        folder = run_folder(Path(job.config.results_dir), record["identity"])
        print(f"finished before, nothing to do: {folder / RECORD}")
        return 0
    from rosa.run import run

    outcome = run(job.config, job.command, progress=True)
    if is_main():
        print(summary(outcome.record))
        print("already finished" if outcome.skipped else "done", end=": ")
        print(outcome.folder / RECORD)
    return 0


def is_failed_job(error: RuntimeError) -> bool:
    """Whether the error is submitit's for a job that failed or was not queued; submitit is imported only if used."""
    if "submitit" not in sys.modules:
        return False
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    return isinstance(error, (FailedSubmissionError, UncompletedJobError))


def after_launch(asked: Request) -> int:
    """Print the outcome of a sweep whose runs a launcher started, from their records; return the exit status."""
    planned = [job for job, _ in expand(CONF, asked)]
    runs = list(asked_for(planned, Path(planned[0].config.results_dir)))
    print("\n".join([*table({planned[0].config.experiment_name: runs}), *to_do(runs, command(sys.argv[1:]))]))
    return 0 if all(run.state == "done" for run in runs) else 1


def after_search(settings: Any) -> int:
    """Print the result of a sweeper that searches, if it writes one as Hydra's manual says; return the exit status."""
    found = Path(settings.sweep.dir, "optimization_results.yaml")
    print(found.read_text(encoding="utf-8") if found.is_file() else f"done: {settings.sweep.dir}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
