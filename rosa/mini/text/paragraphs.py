"""Draw paragraphs until there are as many texts as were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from rosa.mini.text.checks import check_size


def drawn(size: int, rng: Random, draw: Callable[[Random], Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Paragraphs that ``draw`` makes one by one, with at least ``size`` texts in total.

    Raises:
        DataError: a size below 1.
    """
    check_size(size)
    paragraphs: list[tuple[str, ...]] = []
    written = 0
    while written < size:
        paragraphs.append(tuple(draw(rng)))
        written += len(paragraphs[-1])
    return tuple(paragraphs)
