"""A pool of worker processes in which the death of one process fails only its own task.

The pools of the standard library and of joblib break when the system kills one of their processes. Here the result of
a task whose process died is a :class:`Death`, and a new process replaces the dead one. Importing PyTorch and
transformers takes seconds, so a process does many tasks, and new processes are forked, where possible, from a server
that has already done these imports.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar, cast

Task = TypeVar("Task")
Answer = TypeVar("Answer")

STOP = signal.SIGUSR1
"""The signal that asks a process to stop. A SIGTERM may have come from elsewhere, and a second one would kill a run."""
BLOCKED = {signal.SIGTERM}
"""The signals that the fork server does not receive, nor a process that it forks until it begins to work."""
TASKS_EACH = 20
"""Number of tasks after which a process is replaced, so that memory leaks of libraries do not add up."""


@dataclass(frozen=True)
class Death:
    """The result of a task whose process ended before it returned one."""

    exit_code: int
    """Exit code as in Python's ``multiprocessing``: minus the signal's number if a signal ended the process."""

    def __str__(self) -> str:
        if self.exit_code >= 0:
            return f"the process ended with exit status {self.exit_code} in the middle of the run"
        try:
            name = signal.Signals(-self.exit_code).name
        except ValueError:
            name = f"signal {-self.exit_code}"
        if name == "SIGKILL":
            return "SIGKILL: killed by the system, probably out of memory (or by somebody)"
        return f"{name}: the process was ended by this signal in the middle of the run"


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    connection: Connection
    place: int
    task: Task | None = None
    tasks: int = 0


class Workers(Generic[Task, Answer]):
    """A pool with one process for each environment, started when there is a task for it.

    Args:
        do: picklable function from a task to its answer; an exception in it ends the process.
        environments: the environment variables of each process, for example its GPU.
        method: ``forkserver``, or ``spawn`` where a process cannot be forked (other systems, GPUs).
        preload: modules that the fork server imports.
    """

    def __init__(
        self,
        do: Callable[[Task], Answer],
        environments: Sequence[Mapping[str, str]],
        method: str,
        preload: Sequence[str] = (),
    ) -> None:
        self._do = do
        self._environments = environments
        self._context = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["__main__", *preload])
            _ensure_server()  # start its slow imports early, in parallel with other work
        self._workers: list[_Worker[Task]] = []

    @property
    def busy(self) -> int:
        """The number of tasks in progress."""
        return sum(worker.task is not None for worker in self._workers)

    @property
    def free(self) -> int:
        """The number of tasks that can be started now."""
        return len(self._environments) - self.busy

    def start(self, task: Task) -> None:
        """Give a task to an idle process."""
        idle = [worker for worker in self._workers if worker.task is None]
        worker = idle[0] if idle else self._new()
        try:
            worker.connection.send(task)
        except OSError:  # killed while idle
            self._remove(worker)
            worker = self._new()
            worker.connection.send(task)
        worker.task = task
        worker.tasks += 1

    def finished(self, timeout: float) -> list[tuple[Task, Answer | Death]]:
        """The tasks that have ended since the last call, after waiting at most ``timeout`` seconds for the first."""
        busy = [worker for worker in self._workers if worker.task is not None]
        ready = set(wait([end for w in busy for end in (w.connection, w.process.sentinel)], timeout))
        ended: list[tuple[Task, Answer | Death]] = []
        for worker in busy:
            if worker.task is None or not ready & {worker.connection, worker.process.sentinel}:
                continue
            task, worker.task = worker.task, None
            ended.append((task, self._answer(worker)))
            if worker.tasks >= TASKS_EACH and worker in self._workers:
                self._remove(worker)
        return ended

    def ask_to_stop(self) -> None:
        """Send :data:`STOP` to the processes that have a task."""
        for worker in self._workers:
            if worker.task is not None and worker.process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(cast(int, worker.process.pid), STOP)

    def kill(self) -> None:
        """Send SIGKILL to all processes."""
        for worker in self._workers:
            worker.process.kill()

    def __enter__(self) -> Workers[Task, Answer]:
        return self

    def __exit__(self, *_: object) -> None:
        self.ask_to_stop()
        while self._workers:
            self._remove(self._workers[0])

    def _new(self) -> _Worker[Task]:
        taken = {worker.place for worker in self._workers}
        free = [place for place in range(len(self._environments)) if place not in taken]
        assert free, f"all {len(self._environments)} processes have a task"
        ours, theirs = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]  # the stubs leave it out of the base class
            target=_serve, args=(theirs, self._do, dict(self._environments[free[0]]))
        )
        if self._context.get_start_method() == "forkserver":
            _ensure_server()
        process.start()
        theirs.close()
        worker: _Worker[Task] = _Worker(process, ours, free[0])
        self._workers.append(worker)
        return worker

    def _answer(self, worker: _Worker[Task]) -> Answer | Death:
        # An answer sent before the process ended counts.
        with contextlib.suppress(EOFError, OSError):
            if worker.connection.poll():
                return worker.connection.recv()
        self._remove(worker)
        return Death(worker.process.exitcode or 0)

    def _remove(self, worker: _Worker[Task]) -> None:
        self._workers.remove(worker)
        worker.connection.close()  # an idle process then exits
        worker.process.join()


def _ensure_server() -> None:
    """Start the fork server if none is running, with SIGTERM blocked.

    ``timeout``, and batch systems, send it to a whole process group. The server would die of it: no process could be
    forked, and those that it has forked would be taken for dead.
    """
    resource_tracker.ensure_running()  # which the server starts otherwise; afterwards SIGTERM is not blocked any more
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _serve(connection: Connection, do: Callable[[Task], Answer], environment: Mapping[str, str]) -> None:
    """Main loop of a worker process: answer tasks until the connection closes."""
    # Ctrl-C in a terminal reaches every process; the parent alone decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
    os.environ.update(environment)
    # Exclude the imported modules from garbage collection, which the Trainer triggers often.
    gc.freeze()
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(do(connection.recv()))
