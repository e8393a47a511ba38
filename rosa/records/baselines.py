"""Records of baselines: scores without a pretrained model, for the data of finished runs.

Runs on the same data share one record, ``baselines/<task>-<hash>.json`` in the results folder. The hash is of what
identifies the data: a run finds the baselines of its own rows and no others.
"""
# No `from __future__ import annotations` here: a TypedDict could then not tell which keys are NotRequired.

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from rosa.errors import RecordError
from rosa.records.record import Record
from rosa.records.schema import Environment
from rosa.utils import files

FOLDER = "baselines"
SCHEMA = 1


class Form(TypedDict):
    """One form of baseline, see :mod:`rosa.evaluation.baselines`."""

    name: str
    """``constant``, ``words``, ``both texts``, ``differences``, ``first text``, ``second text`` or ``retrieval``."""
    seconds: float
    """Duration of fitting and predicting."""
    scores: dict[str, dict[str, float | None]]
    """Split -> metric -> score; null where it is undefined."""


class Baselines(TypedDict):
    """The record of the baselines of one task on one set of rows."""

    schema: int
    method: str
    """``baseline``."""
    model: None
    """Always null."""
    data: dict[str, Any]
    """The identity of the rows, see :func:`data_key`."""
    forms: list[Form]
    command: str
    """The command that made the record."""
    scorer: NotRequired[dict[str, Any]]
    """For generated texts: the programs that computed the scores."""
    environment: Environment
    """The same as in a run's record."""
    started: str


Found = Mapping[str, Baselines]
"""Records of baselines by the hash of their rows, see :func:`find`."""

_REQUIRED: dict[str, type] = {"data": dict, "forms": list, "command": str, "environment": dict, "started": str}


def data_key(task: str, texts: list[str], facts: Mapping[str, Any], seed: int, scorer: str = "e2e") -> dict[str, Any]:
    """The identity of the rows that a run trained and was scored on, and of the scorer of its texts.

    Args:
        task: name of the task.
        texts: ``task.texts``, the columns.
        facts: of the data, from a record or :attr:`rosa.data.TaskData.facts`.
        seed: of the run; part of the key only if it drew rows (``data.limit``, ``selection=holdout``).
        scorer: ``task.scorer``; part of the key only if it is not that of E2E.
    """
    splits = {name: [split["rows"], split["sha256"]] for name, split in sorted(facts["splits"].items())}
    limit = facts.get("limit")
    drawn = bool(limit) or "holdout" in splits
    key = {"task": task, "texts": list(texts), "splits": splits, "limit": limit, "seed": seed if drawn else None}
    return key if scorer == "e2e" else key | {"scorer": scorer}


def key_of_run(record: Record) -> dict[str, Any] | None:
    """:func:`data_key` of a run; None if it failed before its data were read, or has no texts."""
    facts, task = record["data"], record["config"]["task"]
    if not facts.get("splits") or not task["texts"]:
        return None
    return data_key(task["name"], task["texts"], facts, record["identity"]["seed"], task.get("scorer", "e2e"))


def path_of(results_dir: Path, key: Mapping[str, Any]) -> Path:
    """The file of the baselines for these rows."""
    return Path(results_dir, FOLDER, f"{key['task'].replace('/', '--')}-{hash_of(key)}.json")


def hash_of(key: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]


def write(path: Path, record: Baselines) -> None:
    """Write a record atomically.

    Raises:
        OutputError: it cannot be written.
    """
    files.write(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: Path) -> Baselines:
    """Read and validate a record.

    Raises:
        RecordError: it is missing, is not JSON, or lacks a key; the message names the file.
    """
    record = files.read_json(path, RecordError, "a readable record of baselines")
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise RecordError(f"{path}: not a record of baselines of schema {SCHEMA}")
    for name, kind in _REQUIRED.items():
        if not isinstance(record.get(name), kind):
            raise RecordError(f"{path}: {name}={record.get(name)!r}, expected {kind.__name__}")
    for number, form in enumerate(record["forms"]):
        if not _is_form(form):
            raise RecordError(f"{path}: forms[{number}] has not a name, seconds, and scores by split and metric")
    return record  # type: ignore[return-value]  # checked above


def _is_form(form: Any) -> bool:
    """Whether a value read from JSON is a :class:`Form`."""
    if not isinstance(form, dict) or not isinstance(form.get("name"), str) or not _is_number(form.get("seconds")):
        return False
    splits = form.get("scores")
    return isinstance(splits, dict) and all(
        isinstance(split, dict) and all(score is None or _is_number(score) for score in split.values())
        for split in splits.values()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def find(results_dir: Path) -> tuple[dict[str, Baselines], list[RecordError]]:
    """Every record of baselines in a results folder, by :func:`hash_of` its rows, and the errors of unreadable ones."""
    found, problems = {}, []
    for path in sorted(Path(results_dir, FOLDER).glob("*.json")):
        try:
            record = read(path)
            found[hash_of(record["data"])] = record
        except RecordError as error:
            error.path = path
            problems.append(error)
    return found, problems
