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

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rosa.config import from_hydra, register
from rosa.config.explain import explained
from rosa.config.overrides import readable
from rosa.errors import ConfigError
from rosa.records import RECORD
from rosa.records.summary import summary
from rosa.sweep.jobs import Job, command, expand, preflight
from rosa.sweep.local import Result, run_all
from rosa.sweep.slurm import run_as_job
from rosa.sweep.status import asked_for, table, to_do
from rosa.utils.console import run_command
from rosa.utils.distributed import is_main, launched

CONF = Path(__file__).resolve().parent.parent / "conf"
LOCAL_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
jobs: list[Job] = []
"""The requested runs. Hydra calls ``compose`` for one after the other; they are collected here to run in parallel."""

refused: list[ConfigError] = []
"""Errors of requested runs; raised after Hydra ends, since Hydra would print further lines."""


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def compose(composed: DictConfig) -> Result | None:
    """Collect the composed run; in a process that a launcher started for it, do it and return its outcome."""
    context = HydraConfig.get()
    try:
        job = Job(from_hydra(composed), command(context.overrides.task))
    except ConfigError as error:
        refused.append(error)
        return None
    if context.mode == RunMode.MULTIRUN and context.launcher._target_ != LOCAL_LAUNCHER:
        return run_as_job(job)
    jobs.append(job)
    return None


def main() -> int:
    """Do the run or the sweep; return the exit status, 1 if a run of a sweep failed."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing its own trace
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rosa").setLevel(logging.INFO)
    register()
    sys.argv[1:] = readable(sys.argv[1:])
    multirun = bool({"-m", "--multirun"} & set(sys.argv[1:]))
    if multirun and launched():
        raise ConfigError(
            "-m under torchrun: its processes all work on a single run; leave -m out, or start the sweep without "
            "torchrun, which gives each run its own GPU"
        )
    if multirun:
        preflight(CONF, sys.argv[1:])
    try:
        with explained(CONF, sys.argv[1:]):
            compose()
    except RuntimeError as error:
        if not is_failed_job(error):
            raise
        print(f"error: {error}", file=sys.stderr)
    if refused:
        raise refused[0]
    if not multirun:
        return run_alone(jobs[0]) if jobs else 0  # no job: Hydra printed its help or the configuration
    if jobs:
        results = run_all(jobs, jobs[0].config.jobs)
        return 0 if all(result.status in ("done", "skipped", "elsewhere") for result in results) else 1
    return after_launch()


def run_alone(job: Job) -> int:
    """Do one run, and print its scores and the path of its record."""
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


def after_launch() -> int:
    """Print the outcome of a sweep whose runs a launcher started, from their records; return the exit status."""
    planned = list(expand(CONF, sys.argv[1:]))
    runs = list(asked_for(planned, Path(planned[0].config.results_dir)))
    print("\n".join([*table({planned[0].config.experiment_name: runs}), *to_do(runs, command(sys.argv[1:]))]))
    return 0 if all(run.state == "done" for run in runs) else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
