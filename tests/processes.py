"""Processes that need not import PyTorch again, for tests of several that work together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import multiprocessing

LOADED = ["rosa.run", "rosa.peft", "tests.adapters.tiny"]
"""What takes long to import, and what the processes share."""


def together(act: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """Call ``act(rank, *arguments)`` in each of several processes, and wait for them; an error in one is raised here.

    They come from a server that has imported what they need, where spawned ones would each import it anew.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(LOADED)
    multiprocessing.start_processes(act, arguments, nprocs=count, start_method="forkserver")
