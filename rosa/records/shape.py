"""Whether values read from JSON have the shape of a type: required keys, and kinds of values, at every depth.

A type is compiled once into a function, since the records of thousands of runs are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from rosa.records.schema import Evaluation, Scores

Check = Callable[[Any], str]
"""What is wrong with a value, as text that follows the value's place: ``.rows is missing``, ``[2]='x', expected
number``; empty where nothing is. A key that the type does not declare is let be: a later version may have added it."""

NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null"}


@functools.cache
def check(hint: Any) -> Check:
    """The check of values of a type: a ``TypedDict``, ``list``, ``dict`` of texts, literal, union, or plain type."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return _anything
    if is_typeddict(hint):
        return _object(hint)
    if origin is Literal:
        return _one_of(parts)
    if origin is list:
        return _list(parts[0])
    if origin is dict:
        return _values(parts[1])
    kinds = _kinds(hint)
    if kinds:
        return _plain(kinds, " or ".join(NAMES[part] for part in parts or (hint,)))
    assert origin in (Union, UnionType), f"{hint}: no type of a value in a record"
    (inner,) = (check(part) for part in parts if part is not NoneType)  # more than one is a type of no value
    return lambda value: "" if value is None else inner(value)


def _kinds(hint: Any) -> frozenset[type]:
    """The types that JSON gives the values of a plain type, or of a union of plain types; empty for another type."""
    if get_origin(hint) in (Union, UnionType):
        each = [_kinds(part) for part in get_args(hint)]
        return frozenset[type]().union(*each) if all(each) else frozenset()
    if hint is float:  # JSON has one kind of number
        return frozenset({float, int})
    return frozenset({hint}) if hint in NAMES else frozenset()


def _anything(_: Any) -> str:
    return ""


def _plain(kinds: frozenset[type], name: str) -> Check:
    return lambda value: "" if type(value) in kinds else f"={value!r}, expected {name}"


def _one_of(choices: tuple[Any, ...]) -> Check:
    return lambda value: "" if value in choices else f"={value!r}, expected one of {', '.join(choices)}"


def _list(hint: Any) -> Check:
    inner, kinds = check(hint), _kinds(hint)

    def found(value: Any) -> str:
        if type(value) is not list:
            return f"={value!r}, expected a list"
        if not kinds.issuperset(map(type, value)):
            for place, one in enumerate(value):
                if problem := inner(one):
                    return f"[{place}]{problem}"
        return ""

    return found


def _values(hint: Any) -> Check:
    """The check of an object whose keys are data and whose values are of one type."""
    inner, kinds = check(hint), _kinds(hint)

    def found(value: Any) -> str:
        if type(value) is not dict:
            return f"={value!r}, expected an object"
        if not kinds.issuperset(map(type, value.values())):
            for key, one in value.items():
                if problem := inner(one):
                    return f".{key}{problem}"
        return ""

    return found


def _object(declared: Any) -> Check:
    hints = get_type_hints(declared)
    keys = [(key, _kinds(hint), check(hint), key in declared.__required_keys__) for key, hint in hints.items()]
    others = check(Scores) if declared is Evaluation else _anything  # whose further keys are names of splits

    def found(value: Any) -> str:
        if type(value) is not dict:
            return f"={value!r}, expected an object"
        for key, kinds, inner, required in keys:
            if key in value:
                one = value[key]
                if type(one) not in kinds and (problem := inner(one)):
                    return f".{key}{problem}"
            elif required:
                return f".{key} is missing"
        if others is not _anything:
            for key in value.keys() - hints.keys():
                if problem := others(value[key]):
                    return f".{key}{problem}"
        return ""

    return found
