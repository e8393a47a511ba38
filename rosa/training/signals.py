"""Handle the signals on which a run writes a checkpoint and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rosa.errors import InterruptedRun

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SIGINT: Ctrl-C; SIGTERM: ``kill``, ``scancel``, ``scontrol requeue``; the others: SLURM, before a time limit."""


class StopRequest:
    """The first signal received, as ``number``; None before."""

    def __init__(self) -> None:
        self.number: int | None = None

    def requested(self) -> bool:
        """Whether to stop after the current update."""
        return self.number is not None


@contextmanager
def stop_signals(handed_on: bool = False) -> Iterator[StopRequest]:
    """Turn the first signal of each kind into a request to stop; a second one gets its previous handler.

    The signal's number is stored on an :class:`InterruptedRun` that is raised in the block.

    Args:
        handed_on: True under a launcher that forwards signals which this process also receives directly; repeats are
            then ignored, and the launcher kills processes that do not exit in time.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python allows signal handlers only in the main thread
        return

    def ask(number: int, _: Any) -> None:
        request.number = request.number or number
        if not handed_on:
            signal.signal(number, earlier[number])

    earlier: dict[int, Any] = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield request
    except InterruptedRun as interruption:
        interruption.signal = request.number
        raise
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
