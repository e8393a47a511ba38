"""Counts the bytes of tensors, which do not depend on the machine's load and allocator as resident memory does."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Tracks the bytes of the tensors that operations create, as long as they exist.

    Not seen: the working memory inside an operation, and of sharded tensors (``DTensor``) the operations inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._note(storage, 0)  # it was there before
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._note(storage, storage.nbytes())
        return out

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


ONE_THREAD = "gloo_of_one_thread"
"""The backend of :func:`join`."""
PAUSE = 0.002
"""Seconds to wait for the group's thread to release its tensors."""


class AllocatedInGroup(Allocated):
    """The same in a process of a group of :func:`join`, without the tensors that only the thread of the group holds.

    The thread says that an operation is done before it lets go of its tensors. So a pause and another operation follow
    each: mostly, the thread has let go of them by then. Where it has not, more bytes are counted than the process
    needs, never fewer: of several measurements the least is the best.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func.namespace in ("c10d", "_c10d_functional"):
            distributed.barrier()
            time.sleep(PAUSE)
        return out


def join(folder: Path, rank: int, processes: int) -> None:
    """Join a group of processes on the CPU, which share a folder; one thread does its operations in turn."""
    if not hasattr(distributed.Backend, ONE_THREAD.upper()):
        distributed.Backend.register_backend(ONE_THREAD, _of_one_thread, devices="cpu")
    store = distributed.FileStore(str(folder / "store"), processes)
    distributed.init_process_group(ONE_THREAD, store=store, rank=rank, world_size=processes)


def _of_one_thread(store: distributed.Store, rank: int, processes: int, timeout: timedelta) -> Any:
    options = distributed.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # which its stubs lack
    options._devices = [distributed.ProcessGroupGloo.create_default_device()]
    options._threads = 1
    options._timeout = timeout
    return distributed.ProcessGroupGloo(store, rank, processes, options)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]


def peak_bytes(action: Callable[[], object]) -> int:
    """The most bytes that an action's tensors have at once, its results included."""
    with Allocated() as held:
        kept = action()
    del kept
    return held.peak
