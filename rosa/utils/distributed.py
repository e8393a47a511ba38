"""The processes of one run: one, or as many as a launcher such as ``torchrun`` has started, a GPU each.

All of them train. The first one alone takes the run's lock, decides what there is to do, writes, draws and prints; the
others follow. Who is who stands in the environment variables that ``torchrun`` sets, so that a script can ask before
PyTorch is imported. In a process that nobody launched so, every function here gives back what it was given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rosa.errors import ProcessesError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

ENDED = "rosa/first-ended"
"""The key by which the first process says that it has written all that it had to."""
ENDING_SECONDS = 60
"""The longest that the others wait for that, where all have stopped: it may have an upload to W&B to end."""
SPEAKING_SECONDS = 2
"""The longest that the first process should need to say what went wrong."""


# --- who am I --------------------------------------------------------------------------------------------------------


def launched() -> bool:
    """Whether a launcher started this process as one of a run's."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def count() -> int:
    """How many processes the run has, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


# --- together --------------------------------------------------------------------------------------------------------


@contextmanager
def joined(device: str, alike: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Let the processes that a launcher started speak to each other, through gloo, and between GPUs through NCCL.

    Args:
        device: ``cuda``: from here on, the GPU of this process is the one that its local rank numbers; or ``cpu``.
        alike: errors that all processes meet at the same point, so that the first one needs no other any more. On the
            end of one the launcher ends all, so that the others wait until the first one has written it down.

    Raises:
        ProcessesError: there are more processes on this machine than GPUs.
    """
    if not launched():
        yield
        return
    from torch import cuda, distributed

    if device == "cuda":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", count()))
        if here > cuda.device_count():
            raise ProcessesError(
                f"{here} processes on this machine see {cuda.device_count()} GPUs, and each needs one of its own: "
                "start as many (torchrun --nproc-per-node; on SLURM hydra.launcher.tasks_per_node, with gpus_per_node "
                "and not gpus_per_task, which hides the others' GPUs), or use train.device=cpu"
            )
        cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, number, size = next(iter(distributed.rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=size)
    try:
        yield
    except Exception as error:
        if isinstance(error, (ProcessesError, *alike)) and not is_main():
            with suppress(distributed.DistError):  # it took too long, or is gone
                store.wait([ENDED], timedelta(seconds=ENDING_SECONDS))
        raise
    finally:
        if is_main():
            store.set(ENDED, "")
        leave()


def leave() -> None:
    """Part from the other processes, before this one does something that they do not wait for."""
    if not launched():
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def let_main_speak() -> None:
    """Wait, before a failure of this process makes the launcher end all, until the first one has told of it."""
    time.sleep(SPEAKING_SECONDS)  # cut short by the launcher, when the first one has ended


def from_main(make: Callable[[], T]) -> T:
    """What the first process makes, in every process; no other one makes it.

    Raises:
        Exception: in the first process, whatever ``make`` raised.
        ProcessesError: in the others, saying what it was.
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
    """What this process makes, once every process has made its own: one that fails takes all with it.

    Without that the others would wait for it, and the record, which the first one writes, would not say what happened.

    Raises:
        Exception: whatever ``make`` raised here.
        ProcessesError: it raised in another process only.
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
    """Whether the flag is raised in any process. All must ask at the same point."""
    if count() == 1:
        return flag
    import torch

    return bool(total(torch.tensor(int(flag))))


def total(values: Tensor) -> Tensor:
    """The sum over all processes, which must ask at the same point; on a GPU without waiting for it."""
    return _reduced(values, "SUM")


def smallest(values: Tensor) -> Tensor:
    """The minimum over all processes, likewise."""
    return _reduced(values, "MIN")


def wait_for_all() -> None:
    """Come back when every process has got here."""
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
