"""Run Java programs as child processes with a time limit; every failure is a JavaError."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from rosa.errors import JavaError

PACKAGE = "default-jre-headless"
"""Package that provides Java on Debian and its derivatives."""

_OPTIONS = (
    "-showversion",  # on the error stream, before the program runs
    "-XX:-UsePerfData",  # writes no file to the temporary folder, where a killed process would leave it
    "-Dfile.encoding=UTF-8",  # whatever the locale says
    "-Dstdout.encoding=UTF-8",
    "-Duser.language=en",  # decimal point, not comma
    "-Duser.country=US",
)


@dataclass
class Program:
    """A running Java program."""

    java: str
    """Path of the ``java`` executable."""
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    """File that receives its standard error."""
    overdue: threading.Event
    """Set when it exceeded ``limit`` and was killed."""
    limit: float
    """Time limit in seconds."""

    def messages(self) -> str:
        """The standard error of the process so far."""
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace")

    def version(self) -> str:
        """Java's version, from ``-showversion``; ``unknown`` if it is not printed."""
        found = re.search(r'version "([^"]+)"', self.messages())
        return found.group(1) if found else "unknown"

    def failure(self, problem: str) -> JavaError:
        """The error to raise for ``problem``, with the first line of standard error; a timeout replaces ``problem``."""
        if self.overdue.is_set():
            problem = f"gave no result within {self.limit:g} s"
        noise = re.compile(
            r"Picked up |openjdk |java version |OpenJDK |Java\(TM\) |Java HotSpot|WARNING", re.IGNORECASE
        )
        lines = [line.strip() for line in self.messages().splitlines() if line.strip() and not noise.match(line)]
        reason = f": {lines[0][:200]}" if lines else ""
        return JavaError(f"Java is broken: {self.java} {problem}{reason}; (re)install {PACKAGE}")


@contextlib.contextmanager
def program(arguments: Sequence[str], limit: float) -> Iterator[Program]:
    """Start a Java program with pipes for standard input and output; it is killed when the block ends.

    Args:
        arguments: those after the options of this module.
        limit: seconds after which the program and its children are killed, so that no pipe blocks for ever.

    Raises:
        JavaError: there is no ``java`` to start.
    """
    java = shutil.which("java")
    if java is None:
        raise JavaError(f"no `java` on the PATH; install it, on Debian by `apt-get install {PACKAGE}`")
    # An unnamed file is deleted with this process and, unlike a pipe that nobody reads, never fills up.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [java, *_OPTIONS, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # own process group, to kill it with its children
            )
        except OSError as error:
            raise JavaError(f"Java is broken: {java} cannot be started: {error}; (re)install {PACKAGE}") from error
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            _end(process)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            yield Program(java, process, said, overdue, limit)
        finally:
            timer.cancel()
            _end(process)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # input that it did not read
                    pipe.close()  # type: ignore[union-attr]  # both are pipes
            process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def run(arguments: Sequence[str], text: str, limit: float) -> tuple[str, str]:
    """Run a Java program with ``text`` as standard input.

    Returns:
        Its standard output, and Java's version.

    Raises:
        JavaError: no Java, an exit status other than 0, more than ``limit`` seconds, or output that is not UTF-8.
    """
    with program(arguments, limit) as running:
        output, _ = running.process.communicate(text.encode("utf-8", "replace"))
        if running.overdue.is_set() or running.process.returncode != 0:
            raise running.failure(f"ended with status {running.process.returncode}")
        try:
            return output.decode("utf-8"), running.version()
        except UnicodeDecodeError:
            raise running.failure("printed output that is not UTF-8") from None
