"""A run of a sweep: its configuration, the command that repeats it alone, and its label."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rosa.config import Config, to_dict
from rosa.errors import ConfigError
from rosa.records.schema import Tuning


@dataclass(frozen=True)
class Job:
    """One run of a sweep, and the shell command that repeats it alone."""

    config: Config
    command: str
    tuning: Tuning | None = None
    """How the learning rate was chosen, once ``train.lr=tuned`` has been looked up."""
    label: str = ""
    """The settings that distinguish the run from the others of its sweep."""
    number: int = 0
    """Its place in the sweep, from 0."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the run alone (``hydra.job.env_set``)."""


def labelled(jobs: Sequence[Job], searched: Collection[str] = ()) -> list[Job]:
    """The jobs with labels: every setting that varies in the sweep, and nothing else.

    The name of a model, task or method stands for all settings of its file. Another setting is in the label if runs
    with the same names differ in it.

    Args:
        jobs: the runs.
        searched: keys that vary in the whole sweep, of which these jobs are a part.
    """
    flat = [settings(job) for job in jobs]
    names = ("experiment_name", "model.name", "task.name", "method.name")
    shown = [key for key in names if len({one[key] for one in flat}) > 1 or key.removesuffix(".name") in searched]
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    varying = {key for one in flat for key in searched if key in one}
    for one in flat:
        varying |= differing(first.setdefault(tuple(one[key] for key in names), one), one)
    if not shown and not varying:
        shown = ["task.name", "method.name", "seed"]
    others = sorted(varying - set(names) - {"seed"}) + (["seed"] if "seed" in varying else [])

    def label(one: Mapping[str, Any]) -> str:
        parts = [str(one[key]) for key in shown if key != "seed"]
        parts += [f"{_short(key, others)}={one[key]}" for key in [*others, *(["seed"] if "seed" in shown else [])]
                  if key in one]  # fmt: skip
        return " ".join(parts)

    return [replace(job, label=label(one)) for job, one in zip(jobs, flat, strict=True)]


def settings(job: Job) -> dict[str, Any]:
    """All settings of a run by dotted key."""
    return dict(_flat(to_dict(job.config)))


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """The keys in which the settings of two runs differ."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def _short(key: str, others: Sequence[str]) -> str:
    """The last part of a key, or the whole key if another one has the same last part."""
    leaf = key.rpartition(".")[2]
    return key if sum(one.rpartition(".")[2] == leaf for one in others) > 1 else leaf


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def command(overrides: Sequence[str], options: Sequence[str] = ()) -> str:
    """The shell command of one run, or with ``-m`` among the arguments of a sweep."""
    return shlex.join(["python", "scripts/train.py", *options, *overrides])


@dataclass(frozen=True)
class Request:
    """The arguments of ``scripts/train.py``."""

    overrides: tuple[str, ...]
    options: tuple[str, ...]
    """Arguments that Hydra itself reads, such as ``-m``, ``--config-dir DIR``, ``--cfg job``."""
    multirun: bool
    """True with ``-m``."""
    sweeps: bool
    """True with ``-m`` or ``hydra.mode=MULTIRUN`` (which a configuration file can set too; that is not seen here)."""
    config_dir: str
    """A folder of further configuration files; empty without one."""
    runs: bool
    """False if Hydra only prints something, as with ``--cfg job`` or ``--help``."""


def _without_dashes(word: str, following: Sequence[str]) -> str:
    """An unknown option, ``--KEY VALUE`` or ``--KEY=VALUE``, as an override; empty if it has no value."""
    key, equals, value = word.lstrip("-").partition("=")
    if not equals and following and not following[0].startswith("-") and "=" not in following[0]:
        value = following[0]
    return f", such as {key.replace('-', '_')}={value}" if key and value else ""


def request(words: Sequence[str]) -> Request:
    """Separate the options from the overrides; they may come in any order.

    Raises:
        ConfigError: an option that Hydra does not know.
    """
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--multirun -m", "--run -r", "--help -h", "--hydra-help", "--version", "--resolve",
                 "--shell-completion -sc"):  # fmt: skip
        options.add_argument(*flag.split(), action="store_true")
    for option in ("--config-dir -cd", "--config-path -cp", "--config-name -cn", "--package -p", "--cfg -c",
                   "--experimental-rerun"):  # fmt: skip
        options.add_argument(*option.split())
    options.add_argument("--info", "-i", nargs="?", const="all")
    found, rest = options.parse_known_args(list(words))
    for place, word in enumerate(rest):
        if word.startswith("-"):
            raise ConfigError(
                f"{word}: no such option; settings are KEY=VALUE{_without_dashes(word, rest[place + 1 :])}"
            )
    overrides = tuple(word for word in rest if not word.startswith("-"))
    # Remove each override once: it may be repeated, and an option's value may look like an override.
    left = list(overrides)
    own: list[str] = []
    for word in reversed(words):
        if word in left:
            left.remove(word)
        else:
            own.insert(0, word)
    answers = (found.help, found.hydra_help, found.version, found.shell_completion, found.cfg, found.info)
    sweeps = found.multirun or any(re.fullmatch(r"\+*hydra\.mode=(RunMode\.)?MULTIRUN", word) for word in overrides)
    return Request(overrides, tuple(own), found.multirun, sweeps, found.config_dir or "", runs=not any(answers))
