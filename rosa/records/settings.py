"""The settings in a record: flattened to dotted keys, and compared with the defaults."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict, get_type_hints

from rosa.config import (
    NOT_IDENTITY,
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    canonical,
    methods,
    to_dict,
    without_places,
)
from rosa.config.identity import default_of
from rosa.records.schema import Configuration, Record


class _Named(TypedDict):
    name: str


class _Model(_Named):
    source: str


class _Data(TypedDict):
    source: str


class _Task(_Named):
    kind: str
    texts: list[str]
    metrics: list[str]
    headline: str
    evaluation: list[str]


class _Train(TypedDict):
    lr: float


NEEDED = {"model": _Model, "task": _Task, "method": _Named, "train": _Train, "data": _Data}
"""Group of a configuration -> the settings that every record has and that its readers rely on. A record that is older
than another setting lacks it."""


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


@functools.cache
def _groups() -> frozenset[str]:
    """Dotted keys of the groups of a configuration; the keys of every other dictionary are a user's."""

    def within(kind: type, prefix: str) -> Iterator[str]:
        for name, inner in get_type_hints(kind).items():
            if dataclasses.is_dataclass(inner):
                yield f"{prefix}{name}"
                yield from within(inner, f"{prefix}{name}.")  # type: ignore[arg-type]  # a class, not an instance

    return frozenset(within(Config, ""))


def _flatten(node: Mapping[str, Any], prefix: str, found: dict[str, Any]) -> None:
    """Put every value of nested groups into ``found``, by dotted key.

    A dictionary with a user's keys is one value, as typed on the command line: their order counts, since the last of
    several patterns wins, and two texts are equal only in the same order. An empty one is no setting.
    """
    for key, value in node.items():
        if not isinstance(value, dict):
            found[f"{prefix}{key}"] = value
        elif f"{prefix}{key}" in _groups():
            _flatten(value, f"{prefix}{key}.", found)
        elif value:
            found[f"{prefix}{key}"] = json.dumps(dict(canonical(value)), ensure_ascii=False)
        else:
            found.pop(f"{prefix}{key}", None)


def learning_rate(record: Record) -> float:
    """The peak learning rate that a run used; with ``train.lr=tuned``, the selected one."""
    return float(record["config"]["train"]["lr"])
