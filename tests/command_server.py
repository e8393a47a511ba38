"""A process that has imported modules once, and forks for each command that it is asked to run.

``python -m tests.command_server MODULE ...`` reads requests from its standard input, a line of JSON each, and answers
each with a line: ``["begin", words, folder, environment, limits]`` with a process id, ``["poll", id]`` with an exit
status or null, ``["end", id]`` with the exit status, both outputs, and whether PyTorch was loaded.

A sweep's fork server (:mod:`multiprocessing.forkserver`) is forked from the sweep too, where Python would start an
interpreter that imports everything again; so are the processes of a torchrun that is given :class:`Forked`. In
``tests/scripts/test_network.py`` every interpreter is started as for a user.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import IO, Any, NoReturn

Answer = list[Any] | int | None


def temporary() -> IO[str]:
    return tempfile.TemporaryFile("w+")


@dataclass
class Command:
    """A command that was begun, and the files to which its process writes."""

    out: IO[str] = field(default_factory=temporary)
    err: IO[str] = field(default_factory=temporary)
    loaded: IO[str] = field(default_factory=temporary)
    status: int | None = None


begun: dict[int, Command] = {}
"""By process id."""


def begin(words: list[str], folder: str, environment: dict[str, str], limits: dict[str, int]) -> int:
    """Fork, and run a script in the child, in a process group of its own; the child's id.

    ``limits`` are those of the module ``resource``, by their names.
    """
    command = Command()
    child = os.fork()
    if not child:
        run(command, words, folder, environment, limits)
    begun[child] = command
    return child


def run(command: Command, words: list[str], folder: str, environment: dict[str, str], limits: dict[str, int]) -> None:
    """Run a script in this process, which ends with it."""
    os.setsid()
    for descriptor, stream in ((1, command.out), (2, command.err)):
        os.dup2(stream.fileno(), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    util.spawnv_passfds = fork_server(util.spawnv_passfds)
    run_script(words, environment, command.loaded)


def run_script(words: Sequence[str], environment: Mapping[str, str], loaded: IO[str] | None = None) -> NoReturn:
    """Run a script as the main module of this process, and end with it; ``loaded`` is told if PyTorch is by then."""
    script = Path(words[0]).absolute()
    sys.argv, sys.path[0] = list(words), str(script.parent)
    sys.path += [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    status = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as asked:
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
        status = 1 if isinstance(asked.code, str) else asked.code or 0
    finally:
        if loaded is not None:
            print("torch" if "torch" in sys.modules else "", end="", file=loaded, flush=True)
    finish(status)


def finish(status: int) -> NoReturn:
    """End this process as an interpreter does, but for freeing a million objects one by one, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def fork_server(spawn: Callable[..., int]) -> Callable[..., int]:
    """A replacement of ``multiprocessing.util.spawnv_passfds`` that forks where a fork server is to be started."""

    def start(executable: str, arguments: Sequence[str], passed: Sequence[int]) -> int:
        program = arguments[-1]
        if "multiprocessing.forkserver" not in str(program):
            return spawn(executable, arguments, passed)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or every fork writes what is in its copy of the buffer
        child = os.fork()
        if child:
            return child
        be_new(passed)
        try:
            exec(program, {})
        finally:
            sys.stderr.flush()
            os._exit(0)

    return start


def be_new(passed: Sequence[int] = ()) -> None:
    """Go on as a new interpreter would: without the handlers, the locks and the open files of the one forked from."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    for state in (forkserver._forkserver, resource_tracker._resource_tracker):  # type: ignore[attr-defined]
        state.__init__()
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2 and int(path.name) not in passed:
            with contextlib.suppress(OSError):
                os.close(int(path.name))


class Forked(subprocess.Popen[bytes]):
    """A process of torchrun's, ``python -u SCRIPT ...`` in a session of its own, forked from this one."""

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        environment = rest[5]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            return
        try:
            be_new()
            os.setsid()
            os.environ.clear()
            os.environ.update(environment)
            run_script(args[2:], environment)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # what comes after is torchrun's


def poll(child: int, options: int = os.WNOHANG) -> int | None:
    """The exit status of a command, or None if it has not ended; minus the number of the signal that ended it."""
    command = begun[child]
    if command.status is None:
        ended, status = os.waitpid(child, options)
        command.status = os.waitstatus_to_exitcode(status) if ended else None
    return command.status


def end(child: int) -> list[Any]:
    """Wait for a command: its exit status, what it wrote on both streams, and whether it had loaded PyTorch."""
    status = poll(child, 0)
    command = begun.pop(child)
    texts = []
    for stream in (command.out, command.err, command.loaded):
        stream.seek(0)
        texts.append(stream.read())
        stream.close()
    return [status, *texts[:2], bool(texts[2])]


def main() -> None:
    """Import the modules, and answer requests until there are no more."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a run collects garbage, and its process would copy what it looks at
    answers: dict[str, Callable[..., Answer]] = {"begin": begin, "poll": poll, "end": end}
    for line in sys.stdin:
        asked, *arguments = json.loads(line)
        print(json.dumps(answers[asked](*arguments)), flush=True)


if __name__ == "__main__":
    main()
