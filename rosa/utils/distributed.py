"""The processes of one run: a single one, or those that a launcher such as ``torchrun`` has started, one for each GPU.

All of them train. Only the main process (rank 0) takes the run's lock, decides what to do, writes and prints. Rank and
world size come from the environment variables that ``torchrun`` sets, so a script can read them before PyTorch is
imported. Without a launcher, every function here acts as for a single process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rosa.errors import ProcessesError
from rosa.utils import heartbeat

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")

ENDED = "rosa/first-ended"
"""The store's key that the main process sets once it has written everything."""
BEATS = "rosa/beats"
"""The store's key with the port on which the main process listens for the others' heartbeat, and its token."""
ENDING_SECONDS = 60
"""Longest time that the other processes wait for this key after training: an upload to W&B may be running."""
SPEAKING_SECONDS = 2
"""Longest time that the main process may need to report an error."""

_heartbeat: heartbeat.Heartbeat | None = None
"""This process's heartbeat; None for a single process."""
_left: list[Any] = []
"""Process groups that were left, kept until the process ends: Gloo's destructor waits for its threads while holding the
interpreter's lock, and would hang if one of them needs the lock to release a tensor."""
_last_words: Callable[[ProcessesError], None] | None = None
"""See :func:`last_words`."""


# --- rank and world size ---------------------------------------------------------------------------------------------


def launched() -> bool:
    """Whether a launcher started this process as one of a run's."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def count() -> int:
    """The number of processes of the run, on all machines (world size)."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """This process's rank, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def is_main() -> bool:
    """Whether this is the main process, which writes and prints."""
    return rank() == 0


def grouped() -> bool:
    """Whether PyTorch has a group of several processes, whoever made it: the library is used under any launcher."""
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


# --- communication ---------------------------------------------------------------------------------------------------


@contextmanager
def joined(device: str, alike: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Connect the processes that a launcher started, through gloo, and between GPUs through NCCL.

    Args:
        device: ``cuda``, which selects the GPU of this process by its local rank, or ``cpu``.
        alike: errors that are raised in every process at the same point. The other processes then wait until the main
            process has written the record, because the launcher ends all processes when one exits.

    Raises:
        ProcessesError: more processes than GPUs on this machine, or the connection to another process was lost. A
            process that does not answer for about 40 seconds ends this one at once (:mod:`rosa.utils.heartbeat`).
    """
    if not launched():
        yield
        return
    from torch import cuda, distributed

    if device == "cuda":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", count()))
        if here > cuda.device_count():
            raise ProcessesError(
                f"{here} processes on this machine, but {cuda.device_count()} GPUs: expected a GPU for each process. "
                "Start fewer processes (torchrun --nproc-per-node; on SLURM hydra.launcher.tasks_per_node, with "
                "gpus_per_node and not gpus_per_task, which hides the other processes' GPUs), or use train.device=cpu"
            )
        cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, number, size = next(iter(distributed.rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=size)
    _listen(store)
    try:
        with losses_named():
            yield
    except Exception as error:
        if isinstance(error, (ProcessesError, *alike)) and not is_main():
            with suppress(distributed.DistError):  # a timeout, or the store is gone
                store.wait([ENDED], timedelta(seconds=ENDING_SECONDS))
        raise
    finally:
        if is_main():
            store.set(ENDED, "")
        leave()


def leave() -> None:
    """Leave the process group, before this process does work that the others do not wait for."""
    global _heartbeat
    if not launched():
        return
    from torch import distributed

    if _heartbeat is not None:
        _heartbeat.stop()
        _heartbeat = None
    if distributed.is_initialized():
        _left.append(distributed.group.WORLD)
        distributed.destroy_process_group()


@contextmanager
def losses_named() -> Iterator[None]:
    """Name the cause where a collective operation fails because another process has ended.

    Raises:
        ProcessesError: instead of the error of gloo, NCCL or the store.
    """
    try:
        yield
    except RuntimeError as error:
        if not launched() or isinstance(error, ProcessesError):
            raise
        from torch import distributed

        text = str(error)
        if not isinstance(error, distributed.DistError) and not any(name in text for name in ("gloo", "NCCL")):
            raise
        first = text.strip().splitlines()[0]
        raise ProcessesError(
            f"process {rank()} of {count()} lost the connection to another one, which was killed or failed; what that "
            f"one printed says why. The same command goes on from the last checkpoint ({first})"
        ) from error


@contextmanager
def last_words(say: Callable[[ProcessesError], None]) -> Iterator[None]:
    """Have ``say`` called, in a thread, before this process ends because another one does not answer."""
    global _last_words
    _last_words = say
    try:
        yield
    finally:
        _last_words = None


def _listen(store: Store) -> None:
    """Start the heartbeat; if its connection fails, only closed connections of other processes are noticed."""
    global _heartbeat
    if count() == 1:
        return
    if is_main():
        server = heartbeat.listening()
        store.set(BEATS, server.invitation)
        _heartbeat = heartbeat.Heartbeat(_end, server, {})
        return
    with suppress(OSError):
        first = heartbeat.connected(os.environ["MASTER_ADDR"], store.get(BEATS).decode(), rank())
        _heartbeat = heartbeat.Heartbeat(_end, None, {"process 0": first})


def _end(dead: str) -> None:
    """End this process: its main thread may be waiting for the dead one in an operation that nothing interrupts."""
    seconds = heartbeat.INTERVAL_SECONDS * heartbeat.MISSES
    error = ProcessesError(
        f"{dead}, of {count()}, has not answered for {seconds:g} seconds: it, its machine or the network has failed. "
        "The same command goes on from the last checkpoint"
    )
    try:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if _last_words is not None:
            _last_words(error)
    finally:
        os._exit(error.exit_status)


def let_main_speak() -> None:
    """Give the main process time to report this process's failure, before exiting makes the launcher end all."""
    time.sleep(SPEAKING_SECONDS)  # the launcher ends this process once the main process has ended


def from_main(make: Callable[[], T]) -> T:
    """Call ``make`` in the main process only, and return its result in every process.

    Raises:
        Exception: in the main process, whatever ``make`` raised.
        ProcessesError: in the others, with the message of that error.
    """
    if count() == 1:
        return make()
    from torch import distributed

    answer: list[Any] = [None, None]
    error: Exception | None = None
    if is_main():
        try:
            answer[0] = make()
        except Exception as raised:
            error = raised
            answer[1] = _named(raised)
    distributed.broadcast_object_list(answer, src=0)
    if error is not None:
        raise error
    if answer[1] is not None:
        raise ProcessesError(f"main process: {answer[1]}")
    return answer[0]


def together(make: Callable[[], T]) -> T:
    """Call ``make`` in every process, and return this process's result; if it raises in one, raise in all.

    Otherwise the others would wait forever, and the record, which the main process writes, would lack the error.

    Raises:
        Exception: whatever ``make`` raised here.
        ProcessesError: ``make`` raised in another process only.
    """
    if count() == 1:
        return make()
    from torch import distributed

    error: Exception | None = None
    try:
        made = make()
    except Exception as raised:
        error = raised
    problems: list[str | None] = [None] * count()
    distributed.all_gather_object(problems, None if error is None else _named(error))
    if error is not None:
        raise error
    for number, problem in enumerate(problems):
        if problem is not None:
            raise ProcessesError(f"process {number} of {count()}: {problem}")
    return made


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process. All processes must call this at the same point."""
    if count() == 1:
        return flag
    import torch

    return bool(total(torch.tensor(int(flag))))


def total(values: Tensor) -> Tensor:
    """The sum over all processes, which must call this at the same point; asynchronous on a GPU."""
    return _reduced(values, "SUM")


def smallest(values: Tensor) -> Tensor:
    """The minimum over all processes, called like :func:`total`."""
    return _reduced(values, "MIN")


def wait_for_all() -> None:
    """Wait until every process has called this."""
    any_of(False)


def _reduced(values: Tensor, operation: str) -> Tensor:
    if count() == 1:
        return values
    from torch import distributed

    reduced = values.clone()
    distributed.all_reduce(reduced, op=getattr(distributed.ReduceOp, operation))
    return reduced


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
