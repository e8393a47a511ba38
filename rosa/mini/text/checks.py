"""Checks of requests for generated text."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.errors import DataError


def check_size(size: int) -> None:
    """Require at least one example.

    Raises:
        DataError: a size below 1.
    """
    if size < 1:
        raise DataError(f"size={size}: expected at least 1")


def check_request(task: str, split: str, splits: Sequence[str], size: int) -> None:
    """Require one of the task's splits, and at least one example.

    Raises:
        DataError: an unknown split, or a size below 1.
    """
    if split not in splits:
        raise DataError(f"split={split!r} of {task}: expected one of {', '.join(splits)}")
    check_size(size)
