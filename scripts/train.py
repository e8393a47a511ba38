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
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import from_clone  # noqa: F401  # finds rosa
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rosa.config import from_hydra, register
from rosa.config.explain import explained
from rosa.config.overrides import readable
from rosa.errors import ConfigError, FailedRun
from rosa.records import RECORD, folder, tracking
from rosa.records.summary import summary
from rosa.sweep.grid import job, options, typed
from rosa.sweep.jobs import request
from rosa.sweep.refusals import (
    refuse_fail_fast,
    refuse_folders,
    refuse_half_a_sweep,
    refuse_processes,
    refuse_wrong_direction,
)
from rosa.utils import loading
from rosa.utils.console import run_command
from rosa.utils.distributed import is_main, launched
from rosa.utils.files import refuse_unwritable

CONF = Path(__file__).resolve().parent.parent / "conf"


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def train(composed: DictConfig) -> float:
    """Do the composed run; in a sweep, Hydra calls this in the jobs of other launchers than the project's own.

    Returns:
        The run's selected score, for a sweeper that searches.

    Raises:
        SystemExit: the end of a run that was asked for without ``-m``. Hydra would print lines of its own for an error.
        FailedRun: the run of a job failed.
    """
    context = HydraConfig.get()
    words = typed(context.overrides.task)
    if context.mode == RunMode.RUN:
        status = 1
        try:
            status = run_command(lambda: alone(composed, words, context))
        except Exception:
            traceback.print_exc()
        raise SystemExit(status)
    refuse_processes()
    from rosa.sweep.slurm import run_as_job

    config = from_hydra(composed)
    refuse_wrong_direction(config, context.sweeper.get("direction"))
    asked = job(words, config, context, options(context, CONF))
    refuse_fail_fast([asked])  # the project's own sweeper has refused it before, others do not know it
    result = run_as_job(asked)
    if result.status not in ("done", "skipped"):
        raise FailedRun(result.line)
    return result.score


def alone(composed: DictConfig, words: Sequence[str], context: Any) -> int:
    """Do one run, and print its scores and the path of its record."""
    from rosa.run.device import resolve  # these read data; the help, and a sweep's start, need none of it
    from rosa.run.earlier import Inputs, finished

    refuse_half_a_sweep(context.sweeper.get("params"), words, context.sweeper.get("where"))
    with explained(CONF, words):
        asked = job(words, from_hydra(composed), context, options(context, CONF))
    if not launched():  # what needs no PyTorch comes before it is loaded
        config, _ = resolve(asked.config, command=asked.command)
        record = finished(config, Inputs())
        if record is not None:
            print(summary(record))
            print(f"finished before, nothing to do: {folder(config) / RECORD}")
            return 0
        refuse_unwritable(folder(config), "results_dir=")
        tracking.load_early(config)
    loading.load("rosa.run.pipeline")
    from rosa.run import run

    outcome = run(asked.config, asked.command, progress=True)
    if is_main():
        print(summary(outcome.record))
        print("already finished" if outcome.skipped else "done", end=": ")
        print(outcome.folder / RECORD)
    return 0


def main() -> None:
    """Do the run or the sweep.

    Raises:
        SystemExit: as of :func:`train`; or a run of a sweep failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing its own trace
    logging.basicConfig(format="%(message)s")
    for name in ("rosa", "hydra_plugins"):  # sweepers that search log what they have found
        logging.getLogger(name).setLevel(logging.INFO)
    register()
    asked = request(readable(sys.argv[1:]))
    if asked.runs:  # before Hydra makes the folder
        refuse_folders(asked.overrides)
        if asked.sweeps:
            refuse_processes()
    if asked.multirun and not asked.runs:
        raise ConfigError("-m: --cfg, --info and --help tell about one run: leave -m out")
    sys.argv[1:] = [*asked.options, *asked.overrides]  # Hydra's parser takes overrides in one piece only
    with explained(CONF, asked.overrides):
        train()


if __name__ == "__main__":
    sys.exit(run_command(main))
