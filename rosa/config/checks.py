"""Checks of single configuration values; each raises a ConfigError that names the key and value."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from rosa.errors import ConfigError


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise a ConfigError unless the condition holds; ``expected`` describes valid values."""
    if not condition:
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def choice(key: str, value: str, options: tuple[str, ...]) -> None:
    """Require one of the options."""
    require(value in options, key, value, "one of " + ", ".join(options))


KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
"""Types of a dataclass's fields, in words."""
TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def of_kind(value: object, kind: str) -> bool:
    """Whether a field of this kind accepts a value; an int is accepted as a float, a bool is not a number."""
    return isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "bool")


def plain(value: Any) -> Any:
    """A number of another library, such as ``numpy.int64``, as Python's own, which records can hold; else the value."""
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def typed(config: Any, prefix: str) -> None:
    """Require that each field of a dataclass whose type is in ``KINDS`` has a value of that type.

    Hydra checks values from files and the command line; values passed in Python are checked here. Numbers of other
    libraries become Python's.
    """
    for item in dataclasses.fields(config):
        kind = item.type if isinstance(item.type, str) else item.type.__name__
        if kind in KINDS:
            value = plain(getattr(config, item.name))
            setattr(config, item.name, value)
            require(of_kind(value, kind), f"{prefix}.{item.name}", value, KINDS[kind])


def texts(key: str, value: object) -> None:
    """Require a list of texts; Hydra does not check the elements of a list."""
    flat = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    require(flat, key, value, "a list of texts, such as [A,B]")


def patterns(key: str, value: object) -> None:
    """Require a dictionary whose keys are patterns of names."""
    named = isinstance(value, Mapping) and all(isinstance(pattern, str) and pattern for pattern in value)
    require(named, key, value, "a dictionary whose keys are patterns of names")


def is_name(value: str) -> bool:
    """Whether a text is a valid name of a file or folder that does not lead to another folder."""
    return bool(value) and value.isprintable() and "/" not in value and value not in (".", "..")


def hub_name(key: str, value: str, instead: str) -> None:
    """Require a name that the Hugging Face hub accepts; ``instead`` says how to name something on this machine."""
    named = re.fullmatch(r"(\w([\w.-]*\w)?/)?\w([\w.-]{0,94}\w)?", value, re.ASCII)
    valid = named is not None and "--" not in value and ".." not in value and not value.endswith(".git")
    require(valid, key, value, f"a name on the hub, OWNER/NAME; {instead}")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def positive(key: str, value: float) -> None:
    """Require a finite number above 0."""
    require(_finite(value) and value > 0, key, value, "a number above 0")


def whole_positive(key: str, value: int) -> None:
    """Require a whole number above 0; of another type is refused by :func:`typed`, or by Hydra."""
    require(value > 0, key, value, "a whole number above 0")


def not_negative(key: str, value: float) -> None:
    """Require a finite number of at least 0."""
    require(_finite(value) and value >= 0, key, value, "a number of at least 0")
