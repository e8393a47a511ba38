"""The JSON record of a run: its path, how it is written and read, and its scores.

A run's folder is named by its identity (experiment, model, task, method, settings, seed), never by a time, and its
``record.json`` is the only source of tables and figures. A record is replaced as a whole, so a killed process or
a full disk leaves either the old record or the new one, never a part.

The keys of a record are listed in ``_TYPES``; ``params`` counts ``trainable`` (adapter, without the head), ``head``
(the head's trainable parameters) and ``total``; ``data`` holds ``splits``: ``{name: {"rows": int, "sha256": str}}``;
``generation`` is empty except for text generation, where it holds what was decoded, how, and the scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rosa.config import (
    Config,
    identity_hash,
    to_dict,
)
from rosa.errors import RecordError
from rosa.utils import files

RECORD = "record.json"
LOCK = ".lock"
"""In a run's folder: held by the process that is doing the run."""
SCHEMA = 1
STATUSES = ("running", "done", "failed")
RULES = ("best", "last")
"""Which epoch's scores: the one with the best headline on the selection split, or the last one."""

_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "status": (str,),
    "identity": (dict,),
    "command": (str,),
    "config": (dict,),
    "metrics": (dict,),
    "warnings": (list,),
    "history": (list,),
    "training": (list,),
    "resamples": (list,),
    "params": (dict,),
    "adapted": (list,),
    "costs": (dict,),
    "environment": (dict,),
    "diagnostics": (dict,),
    "generation": (dict,),
    "data": (dict,),
    "model": (dict,),
    "tuning": (dict, type(None)),
    "wandb": (dict, type(None)),
    "started": (str,),
    "finished": (str, type(None)),
    "error": (dict, type(None)),
}
_LATER = ("diagnostics", "generation")
"""Keys that older records do not have."""
_IDENTITY: dict[str, type] = {"experiment": str, "model": str, "task": str, "method": str, "hash": str, "seed": int}


# --- one record ------------------------------------------------------------------------------------------------------


def identity(config: Config) -> dict[str, Any]:
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


def run_folder(results_dir: Path, run: Mapping[str, Any]) -> Path:
    """The folder of the run with this identity."""
    # A hub name has a slash ("org/name"), which would add a level to the tree.
    parts = [str(run[key]).replace("/", "--") for key in ("experiment", "model", "task")]
    for part in parts:
        if part in (".", ".."):
            raise RecordError(f"{part!r} in {run}: cannot name a folder")
    return Path(results_dir, "runs", *parts, f"{run['method']}-{run['hash']}", f"seed{run['seed']}")


def new(config: Config, command: str) -> dict[str, Any]:
    """A new record for a run that starts now; ``command`` is the shell command that repeats it."""
    empty: dict[str, Any] = {key: (None if type(None) in kinds else kinds[0]()) for key, kinds in _TYPES.items()}
    return empty | {
        "schema": SCHEMA,
        "status": "running",
        "identity": identity(config),
        "command": command,
        "config": to_dict(config),
        "started": now(),
    }


def now() -> str:
    """The time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` to ``folder/record.json`` atomically; a float that is not finite becomes null.

    Raises:
        RecordError: a key is missing or wrong, a value is not JSON, or the folder cannot be written (full disk, no
            permission); the old record is then kept, and no temporary file is left.
    """
    path = Path(folder) / RECORD
    _check(record, path)
    text = json.dumps(_plain(record, "", path), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        files.replace(path, text)
    except OSError as error:
        raise RecordError(f"{folder}: cannot write {RECORD}: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """Read and validate the record in file ``path``.

    Raises:
        RecordError: the file is missing, is not JSON, has another schema, or lacks a key; the message names the file.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record: {error}") from error
    _check(record, Path(path))
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
    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise RecordError(f"{path}: {problem}")

    require(isinstance(record, Mapping), f"holds a {type(record).__name__}, expected an object")
    schema = record.get("schema")
    require(schema == SCHEMA, f"schema={schema!r}, but this version of the project reads schema {SCHEMA}")
    for key, kinds in _TYPES.items():
        if key in _LATER and key not in record:
            continue
        names = " or ".join(kind.__name__ for kind in kinds)
        require(key in record, f"{key} is missing")
        require(isinstance(record[key], kinds), f"{key}={record[key]!r}, expected {names}")
    require(record["status"] in STATUSES, f"status={record['status']!r}, expected one of {', '.join(STATUSES)}")
    for key, kind in _IDENTITY.items():
        value = record["identity"].get(key)
        require(isinstance(value, kind), f"identity.{key}={value!r}, expected {kind.__name__}")
    for group in ("model", "task", "method", "train", "data"):
        require(isinstance(record["config"].get(group), dict), f"config.{group} is missing")
    lr = record["config"]["train"].get("lr")
    require(isinstance(lr, (int, float)), f"config.train.lr={lr!r}, expected the number that the run uses")
    if record["status"] == "done":
        try:
            for rule in RULES:
                score(record, rule)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error


def score(record: Mapping[str, Any], rule: str = "best") -> float:
    """The headline metric on the selection split, at the epoch that ``rule`` selects; NaN if the run diverged.

    Raises:
        RecordError: the run has no such score (yet), or ``rule`` is neither ``best`` nor ``last``.
    """
    if rule not in RULES:
        raise RecordError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    metrics = record["metrics"]
    try:
        split, metric = metrics["selection"]["split"], metrics["selection"]["metric"]
        value = metrics[rule][split][metric]
    except (KeyError, TypeError) as error:
        where = f"metrics.{rule} with the metric that metrics.selection names"
        raise RecordError(f"{describe(record)} (status {record['status']}) has no {where}: {error!r}") from error
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError(f"{describe(record)}: metrics.{rule}.{split}.{metric}={value!r}, expected a number")
    return float(value)


def lower_is_better(record: Mapping[str, Any]) -> bool:
    """Whether a lower headline is better, as for perplexity; False for records written before this option existed."""
    return bool(record["config"]["task"].get("lower_is_better", False))


def selection_rule(record: Mapping[str, Any]) -> str:
    """The run's ``Config.selection``; the default for records written before this option existed."""
    return str(record["config"].get("selection", Config.selection))


def describe(record: Mapping[str, Any]) -> str:
    """A run's name in a message."""
    run = record["identity"]
    return f"run {run['experiment']}/{run['model']}/{run['task']}/{run['method']}-{run['hash']}/seed{run['seed']}"


def order_key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort key of a record; makes every output deterministic."""
    return tuple(record["identity"][key] for key in _IDENTITY)


# --- settings --------------------------------------------------------------------------------------------------------


# --- many records ----------------------------------------------------------------------------------------------------
