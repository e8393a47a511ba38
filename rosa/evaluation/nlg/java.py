"""Java programs as child processes: one way to start them, and one error for all that can go wrong with them."""

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
"""What to install on Debian and its kin."""

_OPTIONS = (
    "-showversion",  # on the error stream, before the program runs
    "-XX:-UsePerfData",  # no files under the system's temporary folder, which a killed process would leave there
    "-Dfile.encoding=UTF-8",  # whatever the locale says
    "-Dstdout.encoding=UTF-8",
    "-Duser.language=en",  # no comma in a number
    "-Duser.country=US",
)


@dataclass
class Program:
    """A Java program that runs."""

    java: str
    """Where Java is."""
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    """What it writes to its error stream."""
    overdue: threading.Event
    """Set when it took longer than it may, and was ended."""
    limit: float
    """How long it may take, in seconds."""

    def messages(self) -> str:
        """What it has written to its error stream."""
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace")

    def version(self) -> str:
        """Of Java, as it names it itself."""
        found = re.search(r'version "([^"]+)"', self.messages())
        return found.group(1) if found else "unknown"

    def failure(self, problem: str) -> JavaError:
        """The error to raise for ``problem``; a program that took too long, or said what it died of, explains it."""
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
    """Start a Java program with pipes for input and output, and see that it is gone in the end.

    Args:
        arguments: after Java's own options.
        limit: seconds after which the program and all that it started are ended, so that no pipe blocks for ever.

    Raises:
        JavaError: there is no ``java`` to start.
    """
    java = shutil.which("java")
    if java is None:
        raise JavaError(f"there is no `java` on the PATH; install {PACKAGE} (apt-get install {PACKAGE})")
    # Files without a name, which are gone with the process, and cannot fill up as a pipe does that nobody reads.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [java, *_OPTIONS, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # a group of its own, to end it with its children
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
                with contextlib.suppress(OSError):  # input that it did not take
                    pipe.close()  # type: ignore[union-attr]  # both are pipes
            process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def run(arguments: Sequence[str], text: str, limit: float) -> tuple[str, str]:
    """Give a program ``text`` to read and wait for its end.

    Returns:
        Its output, and the version of Java.

    Raises:
        JavaError: no Java, an exit status other than 0, no end within ``limit`` seconds, or undecodable output.
    """
    with program(arguments, limit) as running:
        output, _ = running.process.communicate(text.encode("utf-8", "replace"))
        if running.overdue.is_set() or running.process.returncode != 0:
            raise running.failure(f"ended with status {running.process.returncode}")
        try:
            return output.decode("utf-8"), running.version()
        except UnicodeDecodeError:
            raise running.failure("printed something else than text") from None
