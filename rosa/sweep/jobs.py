"""Compose the configurations of a sweep's runs, without starting them."""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rosa.config import Config, from_hydra, to_dict
from rosa.errors import ConfigError
from rosa.records.schema import Tuning
from rosa.utils.console import silence_transformers

EXPERIMENT = "experiment"
"""The group of the files of sweeps."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep, and the shell command that does it alone."""

    config: Config
    command: str
    tuning: Tuning | None = None
    """How the learning rate was chosen, once ``train.lr=tuned`` has been looked up."""
    label: str = ""
    """The settings that distinguish the run from the others of its sweep."""


def labelled(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with labels: every setting that varies in the sweep, and nothing else.

    Of a model, task or method its name stands for the settings that come with it; another setting is shown if it takes
    several values for one of them.
    """
    flat = [dict(_flat(to_dict(job.config))) for job in jobs]
    names = ("experiment_name", "model.name", "task.name", "method.name")
    shown = [key for key in names if len({settings[key] for settings in flat}) > 1]
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    varying: set[str] = set()
    for settings in flat:
        known = first.setdefault(tuple(settings[key] for key in names), settings)
        varying |= {key for key in known.keys() | settings.keys() if known.get(key) != settings.get(key)}
    if not shown and not varying:
        shown = ["task.name", "method.name", "seed"]
    others = sorted(varying - set(names) - {"seed"}) + (["seed"] if "seed" in varying else [])

    def label(settings: Mapping[str, Any]) -> str:
        parts = [str(settings[key]) for key in shown if key != "seed"]
        parts += [f"{_short(key, others)}={settings[key]}" for key in [*others, *(["seed"] if "seed" in shown else [])]
                  if key in settings]  # fmt: skip
        return " ".join(parts)

    return [replace(job, label=label(settings)) for job, settings in zip(jobs, flat, strict=True)]


def _short(key: str, others: Sequence[str]) -> str:
    """The last part of a key, if no other one ends alike."""
    leaf = key.rpartition(".")[2]
    return key if sum(one.rpartition(".")[2] == leaf for one in others) > 1 else leaf


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def command(overrides: Sequence[str], config_dir: str = "") -> str:
    """The shell command of one run, or with ``-m`` among the arguments of a sweep."""
    folder = [f"--config-dir={config_dir}"] if config_dir else []
    return shlex.join(["python", "scripts/train.py", *folder, *overrides])


@dataclass(frozen=True)
class Request:
    """The arguments of ``scripts/train.py``."""

    overrides: tuple[str, ...]
    multirun: bool
    config_dir: str
    """A folder of further configuration files; empty without one."""
    other: bool
    """Whether there are options that Hydra answers itself, such as ``--cfg`` and ``--info``."""


def request(words: Sequence[str]) -> Request:
    """Tell options from overrides, as Hydra does."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("-m", "--multirun", action="store_true")
    options.add_argument("--config-dir", "-cd", default="")
    found, rest = options.parse_known_args(list(words))
    overrides = tuple(word for word in rest if not word.startswith("-"))
    return Request(overrides, found.multirun, found.config_dir, other=len(overrides) < len(rest))


@contextmanager
def _composer(conf: Path) -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()


def _parse(words: Iterable[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(words))


def _fixed(words: Iterable[str]) -> list[str]:
    """The overrides that all runs of a sweep share."""
    return [str(override.input_line) for override in _parse(words) if not override.is_sweep_override()]


def _searched(asked: Request) -> list[str]:
    """The override that adds the folder of further configuration files."""
    return [f"hydra.searchpath=[file://{Path(asked.config_dir).resolve()}]"] if asked.config_dir else []


def _values(override: Any) -> list[str]:
    """``key=value`` for each value of an override."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


def hydra_settings(conf: Path, asked: Request) -> Any:
    """Hydra's own part of what the runs of a sweep share; None where only a swept value completes the configuration."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _composer(conf):
            overrides = [*_fixed(asked.overrides), *_searched(asked)]
            return compose("config", overrides=overrides, return_hydra_config=True).hydra
    except (HydraException, OmegaConfBaseException):
        return None


def expand(conf: Path, asked: Request) -> Iterator[tuple[Job, int]]:
    """Compose the run of each cell of a sweep, once: the values of the experiment's file and those of the command.

    A sweep over experiments is the sweeps of their files, one after the other.

    Args:
        conf: the folder of the configuration groups.
        asked: the command's arguments.

    Yields:
        The job, and the number of all jobs of its experiment.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: the configuration of a run is invalid.
    """
    parsed = _parse(asked.overrides)
    experiments = [_values(one) for one in parsed if one.key_or_group == EXPERIMENT and one.is_sweep_override()]
    others = [str(one.input_line) for one in parsed if one.key_or_group != EXPERIMENT or not one.is_sweep_override()]
    for experiment in experiments[0] if experiments else ("",):
        yield from _expand(conf, [*filter(None, [experiment]), *others], asked)


def _expand(conf: Path, words: Sequence[str], asked: Request) -> Iterator[tuple[Job, int]]:
    from hydra import compose

    with _composer(conf):
        shared = compose("config", overrides=[*_fixed(words), *_searched(asked)], return_hydra_config=True)
        # As in Hydra's sweeper: the file's sweep parameters first, then the command's; the last value of a key holds.
        swept = [f"{key}={value}" for key, value in (shared.hydra.sweeper.params or {}).items()]
        axes = {override.get_key_element(): _values(override) for override in [*_parse(swept), *_parse(words)]}
        total = math.prod(map(len, axes.values()))
        for cell in itertools.product(*axes.values()):
            config = from_hydra(compose("config", overrides=[*cell, *_searched(asked)]))
            own = [word for word in cell if not word.startswith("hydra")]
            yield Job(config, command(own, asked.config_dir)), total


def refuse_half_a_sweep(settings: Any, asked: Request) -> None:
    """Refuse a sweep's file without ``-m``, unless each key that it sweeps over has a value on the command line.

    Args:
        settings: of :func:`hydra_settings`.
        asked: the command's arguments.

    Raises:
        ConfigError: the message names the keys.
    """
    params = (settings.sweeper.get("params") if settings is not None else None) or {}
    given = {override.key_or_group for override in _parse(asked.overrides)}
    left = [key for key in params if key not in given]
    if left:
        raise ConfigError(
            f"the experiment sweeps over {', '.join(params)}: -m does all its runs; for one of them give a value to "
            f"{', '.join(left)}"
        )


def preflight(conf: Path, asked: Request) -> None:
    """Check that the model and the data shared by all runs of a sweep are available, before the sweep is expanded.

    Args:
        conf: the folder of the configuration groups.
        asked: the command's arguments; keys that are swept over are skipped here and checked with each job.

    Raises:
        ModelError, DataError: the hub is needed and cannot be reached.
    """
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _composer(conf):
            config = from_hydra(compose("config", overrides=[*_fixed(asked.overrides), *_searched(asked)]))
    except (ConfigError, HydraException, OmegaConfBaseException):
        return  # Hydra will report the error later, or a swept value completes the configuration
    if "hub" in (config.model.source, config.data.source):
        print("looking for the model and the data", file=sys.stderr, flush=True)  # the imports take seconds
        from rosa.run.prepare import reach

        silence_transformers()
        reach([config])
