"""The front of scores against costs."""

from __future__ import annotations

from collections.abc import Iterable


def front(points: Iterable[tuple[float, float]], lower_is_better: bool) -> list[tuple[float, float]]:
    """The (cost, score) that no point at that cost or a lower one has a better score than, by ascending cost."""
    sign = -1 if lower_is_better else 1
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not found or sign * score > sign * found[-1][1]:
            found.append((cost, score))
    return found
