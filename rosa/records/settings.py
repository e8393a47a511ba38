"""The settings in a record: flattened to dotted keys, and compared with the defaults."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from rosa.config import (
    NOT_IDENTITY,
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    methods,
    to_dict,
    without_places,
)
from rosa.config.identity import default_of
from rosa.records.schema import Configuration, Record


@functools.cache
def default_settings(method: str) -> dict[str, Any]:
    """The defaults of every setting of a run with ``method``, by dotted key (``train.epochs``, ``method.rank``)."""
    groups: dict[str, Any] = {
        "model": ModelConfig,
        "task": TaskConfig,
        "train": TrainConfig,
        "data": DataConfig,
        "decoding": DecodingConfig,
    }
    if method in methods():
        groups["method"] = methods()[method].config
    found: dict[str, Any] = {"selection": Config.selection}
    for group, kind in groups.items():
        for field in dataclasses.fields(kind):
            value = default_of(field)
            if value is not dataclasses.MISSING:
                plain = to_dict(value) if dataclasses.is_dataclass(value) else value
                _flatten({field.name: plain}, f"{group}.", found)
    return found


def settings(record: Record) -> dict[str, Any]:
    """Every setting that can change a run's result, by dotted key.

    A key that is missing because the record was written before the option existed gets the option's default. The places
    of files are not such settings.
    """
    return resolved_settings(record["config"])


def resolved_settings(config: Configuration) -> dict[str, Any]:
    """The same as :func:`settings`, of a configuration."""
    flat = dict(default_settings(config["method"]["name"]))
    _flatten(config, "", flat)
    return without_places({key: value for key, value in flat.items() if not _left_out(key)})


@functools.cache
def _left_out(key: str) -> bool:
    """Whether a dotted key belongs to a part of the configuration that cannot change a result."""
    names = [f"{group}.{name}".lstrip(".") for group, names in NOT_IDENTITY.items() for name in names]
    return key in names or key.startswith(tuple(f"{name}." for name in names))


def _flatten(node: Mapping[str, Any], prefix: str, found: dict[str, Any]) -> None:
    """Put every value of nested dictionaries into ``found``, by dotted key."""
    for key, value in node.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", found)
        else:
            found[f"{prefix}{key}"] = value


def learning_rate(record: Record) -> float:
    """The peak learning rate that a run used; with ``train.lr=tuned``, the selected one."""
    return float(record["config"]["train"]["lr"])
