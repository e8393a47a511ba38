"""Check that an earlier run of the same name had the settings, data and weights of the requested run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rosa import records
from rosa.config import AUTO_PRECISIONS, Config, ModelConfig, canonical, to_dict
from rosa.data import sources
from rosa.errors import ChangedRunError, RecordError
from rosa.records.schema import Configuration, Environment, Model, Record
from rosa.records.settings import resolved_settings
from rosa.utils import files

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder in a run's folder that has its checkpoints until the run is finished."""
ELSEWHERE = "resumed in another environment: "
"""How the warning of :func:`environment_changes` begins."""
COMPARED = ("commit", "dirty", "python", "device", "cuda", "cpu", "processes")
"""What makes an environment another one, beside the versions of packages."""
SHOWN = 12
"""Number of digits of a hash in a message."""


class Inputs:
    """SHA-256 hashes of the data and weights that runs would read now, each computed once."""

    def __init__(self) -> None:
        self._data: dict[str, dict[str, str]] = {}
        self._weights: dict[Path, dict[str, str]] = {}

    def data(self, config: Config) -> dict[str, str]:
        """Hashes of the data by split; see :func:`rosa.data.sources.hashes`.

        Raises:
            DataError: the data cannot be read.
        """
        question = repr((config.task, config.drawn_data))
        if question not in self._data:
            self._data[question] = sources.hashes(config.task, config.drawn_data)
        return self._data[question]

    def weights(self, config: Config, recorded: Model) -> dict[str, str]:
        """Hashes of the weights by file; empty for a model of the hub, which is identified by its commit.

        Args:
            config: the configuration of the run.
            recorded: ``model`` of its record; for a model that the project makes, it names the folder in the cache.
        """
        folder = _weights_folder(config.model, Path(config.cache_dir, Path(recorded.get("path", "")).name))
        if folder is None:
            return {}
        if folder not in self._weights:
            self._weights[folder] = {path.name: files.sha256(path) for path in sorted(folder.glob("*.safetensors"))}
        return self._weights[folder]


def finished(config: Config, inputs: Inputs) -> Record | None:
    """The record of a run that was finished before; None if there is something to do.

    Args:
        config: the run, resolved (:func:`rosa.run.device.resolve`).
        inputs: hashes of what the run would read.

    Raises:
        ChangedRunError: the finished run differs from the requested one.
        DataError: the data cannot be read.
        RecordError: the record cannot be read.
    """
    folder = records.folder(config)
    path = folder / records.RECORD
    if config.train.force or not path.exists():
        return None
    record = read_earlier(path)
    if record["status"] != "done" or _left_behind(folder):
        return None
    refuse_other_run(record, config, folder, inputs)
    return record


def _left_behind(folder: Path) -> bool:
    """Whether a run that was killed after its last record left files; the same command removes them."""
    return (folder / CHECKPOINTS).exists() or any(folder.glob(f".{records.RECORD}.*"))


def read_earlier(path: Path) -> Record:
    """The record in a run's folder.

    Raises:
        RecordError: it cannot be read; the message says how to start the run over.
    """
    try:
        return records.read(path)
    except RecordError as error:
        raise RecordError(f"{error}; train.force=true starts the run over") from error


def refuse_other_run(record: Record, config: Config, folder: Path, inputs: Inputs) -> None:
    """Raise if an existing run of the same name differs from the requested one in anything that can change its result.

    Equal names are not enough: a default of the code may have changed, or files may have been replaced.

    Args:
        record: the existing run's record.
        config: the requested configuration, resolved.
        folder: the run's folder.
        inputs: hashes of the inputs that the run would read.

    Raises:
        ChangedRunError: the message has each difference with both values.
    """
    found = _differences(records.settings(record), resolved_settings(cast(Configuration, to_dict(config))), "")
    hashes = {name: split["sha256"] for name, split in record["data"].get("splits", {}).items()}
    if hashes:
        now = inputs.data(config)
        found += _differences({name: hashes.get(name, "") for name in now}, now, "data, split ")
    weights = record["model"].get("sha256")
    if weights:
        now = inputs.weights(config, record["model"])
        found += _differences(weights, now, "weights, file ") if now else []
    if found:
        raise ChangedRunError(
            f"{folder}: this run was {'finished' if record['status'] == 'done' else 'begun'} with "
            f"{'; '.join(found)}. Use train.force=true to replace it, or another experiment_name to keep both"
        )


def note_other_precision(config: Config) -> None:
    """Log that a run was already done in another precision than ``train.precision=auto`` means on this machine.

    Args:
        config: the configuration of the run, with ``auto`` resolved.
    """
    for precision in AUTO_PRECISIONS if not (records.folder(config) / records.RECORD).exists() else ():
        other = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))
        path = records.folder(other) / records.RECORD
        if path.exists() and records.read(path)["status"] == "done":
            log.info(
                "train.precision=auto is %s here, so this is a new run; train.precision=%s takes %s, which is done",
                config.train.precision, precision, path.parent,
            )  # fmt: skip


def environment_changes(then: Environment, now: Environment) -> list[str]:
    """A warning for the record of a run that goes on in another environment than it was in; empty in the same.

    Args:
        then: that of the session before; empty for a run that starts.
        now: that of this session.
    """
    before, after = (
        {**{name: found.get(name) for name in COMPARED}, **found.get("packages", {})} for found in (then or now, now)
    )
    found = _differences(before, after, "")
    return [ELSEWHERE + "; ".join(found)] if found else []


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], what: str) -> list[str]:
    """Describe the values that differ."""
    keys = dict.fromkeys((*then, *now))
    return [
        f"{what}{key}={_short(then.get(key))}, now {_short(now.get(key))}"
        for key in keys
        if canonical(then.get(key)) != canonical(now.get(key))
    ]


def _short(value: Any) -> str:
    return value[:SHOWN] if isinstance(value, str) and len(value) == 64 else str(value)


def _weights_folder(model: ModelConfig, in_cache: Path) -> Path | None:
    if model.source == "package":
        return files.package_folder(model.path)
    return {"folder": Path(model.path), "mini": in_cache}.get(model.source)
