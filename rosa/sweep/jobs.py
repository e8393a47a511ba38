"""Compose the configurations of a sweep's runs, without starting them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosa.config import Config, from_hydra
from rosa.errors import ConfigError
from rosa.records.schema import Tuning
from rosa.utils.console import silence_transformers


@dataclass(frozen=True)
class Job:
    """One run of a sweep, and the shell command that does it alone."""

    config: Config
    command: str
    tuning: Tuning | None = None
    """How the learning rate was chosen, once ``train.lr=tuned`` has been looked up."""


def command(overrides: Sequence[str]) -> str:
    """The shell command of one run."""
    return shlex.join(["python", "scripts/train.py", *overrides])


@contextmanager
def _composer(conf: Path) -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()


def _parse(words: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])


def _fixed(words: Sequence[str]) -> list[str]:
    """The overrides that all runs of a sweep share."""
    return [str(override.input_line) for override in _parse(words) if not override.is_sweep_override()]


def expand(conf: Path, overrides: Sequence[str]) -> Iterator[Job]:
    """Yield a job for each run of ``scripts/train.py -m OVERRIDES``.

    Args:
        conf: the folder of the configuration groups.
        overrides: the command's arguments, with or without ``-m``.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: the configuration of a run is invalid.
    """
    from hydra import compose
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.utils import filter_overrides

    with _composer(conf):
        shared = compose("config", overrides=_fixed(overrides), return_hydra_config=True)
        # As in Hydra's sweeper: the file's sweep parameters first, then the command's; the last value of a key holds.
        swept = [f"{key}={value}" for key, value in (shared.hydra.sweeper.params or {}).items()]
        cells = BasicSweeper.split_arguments([*_parse(swept), *_parse(overrides)], None)[0]
        for cell in cells:
            yield Job(from_hydra(compose("config", overrides=cell)), command(filter_overrides(cell)))


def preflight(conf: Path, overrides: Sequence[str]) -> None:
    """Check that the model and the data shared by all runs of a sweep are available, before the sweep is expanded.

    Args:
        conf: the folder of the configuration groups.
        overrides: the command's arguments; keys that are swept over are skipped here and checked with each job.

    Raises:
        ModelError, DataError: the hub is needed and cannot be reached.
    """
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _composer(conf):
            config = from_hydra(compose("config", overrides=_fixed(overrides)))
    except (ConfigError, HydraException, OmegaConfBaseException):
        return  # Hydra will report the error later, or a swept value completes the configuration
    if "hub" in (config.model.source, config.data.source):
        from rosa.run.resolve import reach

        silence_transformers()
        reach([config])
