"""Processes that need not import PyTorch again, for tests of runs that are killed or of several that work together."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

from torch import multiprocessing

LOADED = [
    *("rosa.run", "rosa.peft", "tests.adapters.tiny", "tests.run.test_distributed", "tests.run.test_kill_trials"),
    "tests.frozen",
]
"""What takes long to import, and what the processes share."""


def forking() -> Any:
    """The context of :mod:`multiprocessing` whose processes come from a server that has imported ``LOADED``.

    There is one server in a process; one that another test has started with other modules is replaced.
    """
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._preload_modules != LOADED:
        server._stop()
        server.set_forkserver_preload(LOADED)
    return multiprocessing.get_context("forkserver")


def together(act: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """Call ``act(rank, *arguments)`` in each of several processes, and wait for them; an error in one is raised here.

    ``count`` is the number of processes.
    """
    forking()
    multiprocessing.start_processes(act, arguments, nprocs=count, start_method="forkserver")
