"""Checks a record against the types of :mod:`rosa.records.schema`, key by key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from rosa.records import schema


def undeclared(record: dict[str, Any]) -> list[str]:
    """Differences of a record from its type: undeclared or missing keys, and values of another type."""
    return list(_differences(record, schema.Record, "record", done=record.get("status") == "done"))


def _differences(value: Any, hint: Any, place: str, done: bool) -> Iterator[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint):
        yield from _of_object(value, hint, place, done)
    elif origin in (typing.Union, types.UnionType):
        found = [list(_differences(value, part, place, done)) for part in parts]
        yield from min(found, key=len)
    elif origin is typing.Literal:
        if value not in parts:
            yield f"{place}={value!r}"
    elif origin is list and isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _differences(inner, parts[0], f"{place}[{number}]", done)
    elif origin is dict and isinstance(value, dict):
        for key, inner in value.items():
            yield from _differences(inner, parts[1], f"{place}.{key}", done)
    elif hint is not Any and not _is(value, origin or hint):
        yield f"{place}={value!r} is no {hint}"


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _of_object(value: Any, hint: Any, place: str, done: bool) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}={value!r} is no object"
        return
    may_be_empty = not done or hint in (schema.Diagnostics, schema.Generation)
    if value == {} and may_be_empty:
        return
    yield from (f"{place}.{key} is missing" for key in sorted(hint.__required_keys__ - value.keys()))
    hints = typing.get_type_hints(hint)
    for key, inner in value.items():
        if key in hints:
            yield from _differences(inner, hints[key], f"{place}.{key}", done)
        elif hint is schema.Evaluation:
            yield from _differences(inner, schema.Scores, f"{place}.{key}", done)
        else:
            yield f"{place}.{key} is not declared"
