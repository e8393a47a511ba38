"""The runs that a sweep consists of, found by composing them, without doing them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosa.config import Config, from_hydra
from rosa.errors import ConfigError
from rosa.utils.console import silence_transformers


@dataclass(frozen=True)
class Job:
    """A run to do, and the shell command that does it alone."""

    config: Config
    command: str


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
    """Each run that ``scripts/train.py -m OVERRIDES`` does.

    Args:
        conf: the folder of the configuration groups.
        overrides: the command's arguments, ``-m`` among them or not.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: a run that cannot be.
    """
    from hydra import compose
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.utils import filter_overrides

    with _composer(conf):
        shared = compose("config", overrides=_fixed(overrides), return_hydra_config=True)
        # As the sweeper does it: what the file sweeps over, then what the command says, the last of equals holds.
        swept = [f"{key}={value}" for key, value in (shared.hydra.sweeper.params or {}).items()]
        cells = BasicSweeper.split_arguments([*_parse(swept), *_parse(overrides)], None)[0]
        for cell in cells:
            yield Job(from_hydra(compose("config", overrides=cell)), command(filter_overrides(cell)))


def preflight(conf: Path, overrides: Sequence[str]) -> None:
    """Before a sweep is spelt out job by job: can the model and the data that all its runs share be had at all?

    Args:
        conf: the folder of the configuration groups.
        overrides: the command's arguments; those that are swept over are left out here, and looked at with their job.

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
        return  # Hydra will refuse it in its own place, or a swept value makes it whole
    if "hub" in (config.model.source, config.data.source):
        from rosa.run.resolve import reach

        silence_transformers()
        reach([config])
