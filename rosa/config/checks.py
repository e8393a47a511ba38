"""Checks of single configuration values; each raises a ConfigError that names the key and value."""

from __future__ import annotations

import math

from rosa.errors import ConfigError


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise a ConfigError unless the condition holds; ``expected`` describes valid values."""
    if not condition:
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def choice(key: str, value: str, options: tuple[str, ...]) -> None:
    """Require one of the options."""
    require(value in options, key, value, "one of " + ", ".join(options))


def is_name(value: str) -> bool:
    """Whether a text is a valid name of a file or folder that does not lead to another folder."""
    return bool(value) and value.isprintable() and "/" not in value and value not in (".", "..")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def positive(key: str, value: float) -> None:
    """Require a finite number above 0."""
    require(_finite(value) and value > 0, key, value, "a number above 0")


def not_negative(key: str, value: float) -> None:
    """Require a finite number of at least 0."""
    require(_finite(value) and value >= 0, key, value, "a number of at least 0")
