"""Refuse Hydra features that runs and sweeps of this project do not support, each with an error of one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rosa import records
from rosa.config import Config
from rosa.config.checks import of_kind
from rosa.errors import ConfigError
from rosa.sweep.grid import cells, parse
from rosa.sweep.jobs import Job, differing, settings
from rosa.utils.distributed import launched

FOLDERS = ("hydra.run.", "hydra.output_subdir", "hydra.job.chdir")
"""Hydra's settings of a run's folder."""
SWEEP_FOLDER = ("hydra.sweep.",)
"""Hydra's settings of a sweep's folder."""


def refuse_processes() -> None:
    """Refuse a sweep under a launcher such as torchrun: each of its processes would do the whole sweep.

    Raises:
        ConfigError: a launcher such as torchrun has started this process.
    """
    if launched():
        raise ConfigError(
            "a sweep (-m, or hydra.mode=MULTIRUN) under torchrun: its processes all work on a single run; do one run, "
            "or start the sweep without torchrun, which gives each run its own GPU"
        )


def refuse_half_a_sweep(
    params: Mapping[str, Any] | None, overrides: Sequence[str], where: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Refuse a sweep's file without ``-m``, unless each key that it sweeps over has a value on the command line.

    Args:
        params: ``hydra.sweeper.params``.
        overrides: the command's.
        where: ``hydra.sweeper.where``; a key that it sets for the run that the command chooses needs a value too.

    Raises:
        ConfigError: the message names the keys.
    """
    given = {override.key_or_group for override in parse(overrides)}
    left = [key for key in params or () if key not in given]
    if where and not left:
        first, *_ = cells(params or {}, overrides, where=where)
        told = [word for word in first if word.partition("=")[0].lstrip("+") not in given]
        if told:
            raise ConfigError(
                "the experiment has other values for such runs: -m does them all; for one of them add "
                f"{' '.join(told)}, or another value"
            )
    if left:
        raise ConfigError(
            f"the experiment sweeps over {', '.join(params or ())}: -m does all its runs; for one of them give a value "
            f"to {', '.join(left)}"
        )


def refuse_folders(overrides: Sequence[str], refused: Sequence[str] = FOLDERS) -> None:
    """Refuse Hydra's settings of folders, which would have no effect.

    Args:
        overrides: the command's.
        refused: the settings: :data:`FOLDERS`, or :data:`SWEEP_FOLDER` in a sweep on this machine.

    Raises:
        ConfigError: the message names the setting.
    """
    chosen = [word for word in overrides if word.lstrip("+~").startswith(tuple(refused))]
    if chosen:
        only = "" if refused is FOLDERS else "; only launchers and sweepers of other packages write to hydra.sweep.dir"
        raise ConfigError(f"{chosen[0]}: a run's folder is its identity, under results_dir{only}")


def refuse_job_callbacks(callbacks: Iterable[Any]) -> None:
    """Refuse callbacks (``hydra.callbacks``) of single jobs, which another process would have to call.

    Args:
        callbacks: Hydra's.

    Raises:
        ConfigError: the message names the class and the method.
    """
    from hydra.experimental.callback import Callback

    for callback in callbacks:
        for name in ("on_job_start", "on_job_end"):
            if getattr(type(callback), name, None) is not getattr(Callback, name):
                raise ConfigError(
                    f"hydra.callbacks: {type(callback).__name__}.{name} is not called by hydra/launcher=local, which "
                    "does runs in processes of their own; hydra/launcher=basic does one after the other, and calls it"
                )


def refuse_wrong_direction(config: Config, direction: object) -> None:
    """Refuse a search for the lowest score of a task whose headline is the better the higher it is, or the reverse.

    Args:
        config: a run of the search.
        direction: ``hydra.sweeper.direction``, None where the sweeper has none.

    Raises:
        ConfigError: the message says which direction is right.
    """
    better = "minimize" if config.task.lower_is_better else "maximize"
    asked = str(direction or "").rpartition(".")[2].lower()
    if asked in ("minimize", "maximize") and asked != better:
        raise ConfigError(
            f"hydra.sweeper.direction={asked} with task={config.task.name}: its headline {config.task.headline} is the "
            f"better the {'lower' if config.task.lower_is_better else 'higher'}; use hydra.sweeper.direction={better}"
        )


def refuse_shared_folders(jobs: Iterable[Job]) -> None:
    """Refuse a sweep over what a run's identity leaves out: its runs would have one folder, and one result.

    The same settings twice are one run, which is done once.

    Args:
        jobs: the runs of a sweep.

    Raises:
        ConfigError: the message names the folder, and the keys with both values.
    """
    first: dict[Path, Job] = {}
    for job in jobs:
        folder = records.folder(job.config)
        known = first.setdefault(folder, job)
        if known.config == job.config:
            continue
        one, other = settings(known), settings(job)
        # With train.lr=tuned it only leads to the learning rate, which is in the identity.
        keys = sorted(key for key in differing(one, other) if not key.startswith("train.tuning."))
        if keys:
            ours, theirs = (" ".join(f"{key}={some.get(key)}" for key in keys) for some in (one, other))
            raise ConfigError(
                f"{ours} and {theirs}: both runs have the folder {folder}, whose name does not tell them apart, so one "
                f"would replace the other; do a sweep for each, with another experiment_name or model.name"
            )


def refuse_fail_fast(jobs: Iterable[Job]) -> None:
    """Refuse ``train.fail_fast`` with a launcher that starts the other runs whatever becomes of the first.

    Args:
        jobs: runs that another launcher than the project's own does.

    Raises:
        ConfigError: a run sets it.
    """
    if any(job.config.train.fail_fast for job in jobs):
        raise ConfigError(
            "train.fail_fast=true: only hydra/launcher=local stops a sweep after its first failed run; leave it out "
            "with another launcher"
        )


def refuse_batch_size(size: Any) -> None:
    """Refuse a ``hydra.sweeper.max_batch_size`` that hands the launcher no run.

    Raises:
        ConfigError: it is neither null nor a whole number from 1.
    """
    if size is not None and not (of_kind(size, "int") and size >= 1):
        raise ConfigError(
            f"hydra.sweeper.max_batch_size={size}: expected a whole number of runs from 1, or null for all of them"
        )
