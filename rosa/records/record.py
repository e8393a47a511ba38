"""The JSON record of a run: its path, how it is written and read, and its scores.

A run's folder is named by its identity (experiment, model, task, method, settings, seed), never by a time, and its
``record.json`` is the only source of tables and figures. A record is replaced as a whole, so a killed process or
a full disk leaves either the old record or the new one, never a part.

The keys of a record are those of :class:`rosa.records.schema.Record`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_type_hints

from rosa.config import (
    Config,
    identity_hash,
    is_name,
    to_dict,
)
from rosa.errors import RecordError
from rosa.records import shape
from rosa.records.schema import (
    MAY_BE_EMPTY,
    RULES,
    TYPES,
    Configuration,
    Identity,
    Record,
    Tuning,
    by_split,
)
from rosa.records.settings import NEEDED
from rosa.utils import files
from rosa.utils.console import first_line

RECORD = "record.json"
LOCK = ".lock"
"""In a run's folder: held by the process that is doing the run."""
SCHEMA = 1

# --- one record ------------------------------------------------------------------------------------------------------


def identity(config: Config) -> Identity:
    """The identity of a run: experiment, model, task, method, the hash of its settings, and the seed."""
    return {
        "experiment": config.experiment_name,
        "model": config.model.name,
        "task": config.task.name,
        "method": config.method.name,
        "hash": identity_hash(config),
        "seed": config.seed,
    }


def folder(config: Config) -> Path:
    """The run's own folder, ``results_dir/runs/<experiment>/<model>/<task>/<method>-<hash>/seed<seed>``."""
    return run_folder(Path(config.results_dir), identity(config))


def run_folder(results_dir: Path, run: Identity) -> Path:
    """The folder of the run with this identity."""
    # A hub name has a slash ("org/name"), which would add a level to the tree.
    named = [run["experiment"], run["model"], run["task"], f"{run['method']}-{run['hash']}", f"seed{run['seed']}"]
    parts = [part.replace("/", "--") for part in named]
    for part in parts:
        if not part.isprintable() or part in (".", ".."):
            raise RecordError(f"{part!r} in {run}: cannot name a folder")
    return Path(results_dir, "runs", *parts)


def new(config: Config, command: str, tuning: Tuning | None = None) -> Record:
    """A new record for a run that starts now.

    Args:
        config: the run.
        command: the shell command that repeats it.
        tuning: how its learning rate was chosen, with ``train.lr=tuned``.
    """
    empty = {key: (None if type(None) in kinds else kinds[0]()) for key, kinds in TYPES.items()}
    return cast(Record, empty) | {
        "schema": SCHEMA,
        "status": "running",
        "identity": identity(config),
        "command": command,
        "config": cast(Configuration, to_dict(config)),
        "tuning": tuning,
        "started": now(),
    }


def now() -> str:
    """The time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, record: Record) -> None:
    """Write ``record`` to ``folder/record.json`` atomically; a float that is not finite becomes null.

    Raises:
        RecordError: a key is missing or wrong, a value is not JSON, or the folder cannot be written (full disk, no
            permission); the old record is then kept, and no temporary file is left.
    """
    path = Path(folder) / RECORD
    try:
        plain = _plain(record, "", path)
        _check(plain, path)
        text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except RecursionError as error:
        raise RecordError(f"{path}: a value is nested too deep for JSON") from error
    try:
        files.replace(path, text)
    except (OSError, UnicodeEncodeError) as error:
        raise RecordError(f"{folder}: cannot write {RECORD}: {error}") from error


def read(path: Path) -> Record:
    """Read and validate the record in file ``path``.

    Raises:
        RecordError: the file is missing, is not JSON, has another schema, or lacks a key; the message names the file.
    """
    record = files.read_json(Path(path), RecordError, "a readable record")
    try:
        _check(record, Path(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a readable record: a value is too large, or nested too deep") from error
    return record


def _plain(value: Any, key: str, path: Path) -> Any:
    """Convert ``value`` to JSON types; ``key`` is its place, for the error message."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise RecordError(f"{path}: key {name!r} in {key or 'the record'} is no text")
        return {name: _plain(inner, f"{key}.{name}".lstrip("."), path) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{key}[{i}]", path) for i, inner in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise RecordError(f"{path}: {key} is a {type(value).__name__}, which JSON cannot hold: {value!r}")


def _check(record: Any, path: Path) -> None:
    problem = _problem(record)
    if problem:
        raise RecordError(f"{path}: {problem}")
    if record["status"] == "done":
        try:
            for rule in RULES:
                score(record, rule)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error


@functools.cache
def _parts() -> dict[str, shape.Check]:
    """The check of each value of a record."""
    return {key: shape.check(hint) for key, hint in get_type_hints(Record).items()}


@functools.cache
def _needed() -> dict[str, shape.Check]:
    """The check of the settings that every configuration has, by group."""
    return {group: shape.check(kind) for group, kind in NEEDED.items()}


def _problem(record: Any) -> str:
    """The first thing that is wrong with a record; empty if nothing is."""
    if not isinstance(record, Mapping):
        return f"holds a {type(record).__name__}, expected an object"
    schema = record.get("schema")
    if schema != SCHEMA:
        return f"schema={schema!r}, but this version of the project reads schema {SCHEMA}"
    for key, check in _parts().items():
        if key not in record:
            if key not in Record.__optional_keys__:
                return f"{key} is missing"
        elif record[key] == {} and key in MAY_BE_EMPTY:
            continue
        elif problem := check(record[key]):
            return f"{key}{problem}"
    for key, value in record["identity"].items():
        # The experiment also names files of tables and figures; a model may be called as on the hub, owner/name.
        if isinstance(value, str) and (not value.isprintable() or (key == "experiment" and not is_name(value))):
            return f"identity.{key}={value!r}, expected a name without '/' and control characters"
    for group, check in _needed().items():
        if problem := check(record["config"][group]):
            return f"config.{group}{problem}"
    for key in ("evaluation", "metrics"):
        if not record["config"]["task"][key]:
            return f"config.task.{key}=[], expected at least one"
    return ""


def score(record: Record, rule: str = "best") -> float:
    """The headline metric on the selection split, at the epoch that ``rule`` selects; NaN if the run diverged.

    Raises:
        RecordError: the run has no such score (yet), or ``rule`` is neither ``best`` nor ``last``.
    """
    if rule not in RULES:
        raise RecordError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    metrics = record["metrics"]
    try:
        split, metric = metrics["selection"]["split"], metrics["selection"]["metric"]
        value = by_split(metrics[rule])[split][metric]
    except (KeyError, TypeError, AttributeError) as error:
        where = f"metrics.{rule} with the metric that metrics.selection names"
        raise RecordError(f"{describe(record)} (status {record['status']}) has no {where}: {error!r}") from error
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError(f"{describe(record)}: metrics.{rule}.{split}.{metric}={value!r}, expected a number")
    return float(value)


def lower_is_better(record: Record) -> bool:
    """Whether a lower headline is better, as for perplexity; False for records written before this option existed."""
    return bool(record["config"]["task"].get("lower_is_better", False))


def selection_rule(record: Record) -> str:
    """The run's ``Config.selection``; the default for records written before this option existed."""
    return str(record["config"].get("selection", Config.selection))


def describe(record: Record) -> str:
    """A run's name in a message."""
    run = record["identity"]
    return f"run {run['experiment']}/{run['model']}/{run['task']}/{run['method']}-{run['hash']}/seed{run['seed']}"


def error_line(record: Record) -> str:
    """``RuntimeError: out of memory``: the type of a run's error, and its message's first line; empty without one."""
    error = record["error"]
    return first_line(error["type"], error["message"]) if error else ""


def order_key(record: Record) -> tuple[Any, ...]:
    """Sort key of a record; makes every output deterministic."""
    run = record["identity"]
    return run["experiment"], run["model"], run["task"], run["method"], run["hash"], run["seed"]
