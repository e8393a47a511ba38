"""Timing that is robust to other load on the machine: interleaved and paired, with medians and quartiles."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

Action = Callable[[int], object]
"""A timed function; its argument is the number of earlier calls."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, and their quartiles."""

    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, by linear interpolation between the values."""
    assert values, "no values: there is no median"
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratio(values: Sequence[float], references: Sequence[float]) -> Spread:
    """The median ratio of paired times, round by round, with quartiles.

    The two times of a round were taken in close succession on the same batch, so a temporary slowdown of the machine
    and differences in batch size cancel in the ratio.

    Raises:
        ValueError: the numbers of values and references differ.
    """
    return spread([value / reference for value, reference in zip(values, references, strict=True)])


def seconds(action: Callable[[], object], device: str) -> float:
    """Time an action in seconds until the device has finished it: by the host's clock, on a GPU by the device's."""
    if device != "cuda":
        start = time.perf_counter()
        action()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    action()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def interleave(
    actions: Mapping[str, Action], rounds: int, device: str, title: str, times: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Time every action once a round, all actions in each round, in an order drawn anew each time.

    The order is random because the speed of an action may depend on how the previous action left the caches.

    Args:
        actions: by name.
        rounds: number of rounds.
        device: ``cpu`` or ``cuda``; a GPU is synchronized around each action.
        title: of the progress bar.
        times: for actions timed more than once in a round, the number of consecutive calls.

    Returns:
        The seconds of each action, in the order of its calls.
    """
    order = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in actions}
    calls = {name: (times or {}).get(name, 1) for name in actions}
    with tqdm(total=rounds * sum(calls.values()), desc=title, unit="run", dynamic_ncols=True) as bar:
        for _ in range(rounds):
            for name in order.sample(list(actions), len(actions)):
                for _ in range(calls[name]):
                    position = len(taken[name])
                    taken[name].append(seconds(lambda name=name, i=position: actions[name](i), device))  # type: ignore[misc]
                    bar.update(1)
    return taken
