"""The JSON record of a run: its path, how it is written and read, and its scores.

A run's folder is named by its identity (experiment, model, task, method, settings, seed), never by a time, and its
``record.json`` is the only source of tables and figures. A record is replaced as a whole, so a killed process or
a full disk leaves either the old record or the new one, never a part.

The keys of a record are those of :class:`rosa.records.schema.Record`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from rosa.config import (
    Config,
    identity_hash,
    is_name,
    to_dict,
)
from rosa.errors import RecordError
from rosa.records.schema import (
    GROUPS,
    IDENTITY,
    RULES,
    STATUSES,
    TYPES,
    Configuration,
    Identity,
    Record,
    Tuning,
    by_split,
)
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
        _check(record, path)
        text = json.dumps(_plain(record, "", path), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
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
    # Messages are written for the first problem only: they quote values, and records of thousands of runs are read.
    for problem in _problems(record):
        raise RecordError(f"{path}: {problem}")
    if record["status"] == "done":
        try:
            for rule in RULES:
                score(record, rule)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error


def _problems(record: Any) -> Iterator[str]:
    """What is wrong with a record; after the first problem the record must not be looked at further."""
    if not isinstance(record, Mapping):
        yield f"holds a {type(record).__name__}, expected an object"
    schema = record.get("schema")
    if schema != SCHEMA:
        yield f"schema={schema!r}, but this version of the project reads schema {SCHEMA}"
    for key, kinds in TYPES.items():
        if key not in record:
            if key not in Record.__optional_keys__:
                yield f"{key} is missing"
        elif not isinstance(record[key], kinds):
            yield f"{key}={record[key]!r}, expected {' or '.join(kind.__name__ for kind in kinds)}"
    if record["status"] not in STATUSES:
        yield f"status={record['status']!r}, expected one of {', '.join(STATUSES)}"
    for key, kind in IDENTITY.items():
        value = record["identity"].get(key)
        if not isinstance(value, kind):
            yield f"identity.{key}={value!r}, expected {kind.__name__}"
        # The first one also names files of tables and figures; a model may be called as on the hub, owner/name.
        if isinstance(value, str) and (not value.isprintable() or (key == "experiment" and not is_name(value))):
            yield f"identity.{key}={value!r}, expected a name without '/' and control characters"
    for group in GROUPS:
        if not isinstance(record["config"].get(group), dict):
            yield f"config.{group} is missing"
    lr = record["config"]["train"].get("lr")
    if not isinstance(lr, (int, float)):
        yield f"config.train.lr={lr!r}, expected the number that the run uses"


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
    """``RuntimeError: out of memory``: the type of a run's error and the first line of its message; empty without one.

    A record that another program has written may lack either.
    """
    error = record["error"]
    return first_line(error.get("type", ""), error.get("message", "")) if error else ""


def order_key(record: Record) -> tuple[Any, ...]:
    """Sort key of a record; makes every output deterministic."""
    run = record["identity"]
    return run["experiment"], run["model"], run["task"], run["method"], run["hash"], run["seed"]
