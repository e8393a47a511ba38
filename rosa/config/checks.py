"""The checks of single values, and the error that all of them raise."""

from __future__ import annotations

import math

from rosa.errors import ConfigError


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Refuse a value unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def choice(key: str, value: str, options: tuple[str, ...]) -> None:
    """Refuse a value that is none of the options."""
    require(value in options, key, value, "one of " + ", ".join(options))


def positive(key: str, value: float) -> None:
    """Refuse a number that is not finite and above 0."""
    require(math.isfinite(value) and value > 0, key, value, "a number above 0")


def not_negative(key: str, value: float) -> None:
    """Refuse a number that is not finite and at least 0."""
    require(math.isfinite(value) and value >= 0, key, value, "a number of at least 0")
