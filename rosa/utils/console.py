"""Error output and exit status of the commands, and the nearest valid name for a misspelt one."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rosa.errors import OutOfMemoryError, RosaError
from rosa.utils import distributed

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C stopped: 128 + SIGINT, as in shells."""


def run_command(main: Callable[[], int | None]) -> int:
    """Call a script's ``main`` and return the exit status, 0 where it returns None.

    A :class:`RosaError` becomes two lines on standard error and its own exit status; any other exception is raised.
    If a launcher started several processes, only the main process prints, except when another process ran out of
    memory, which the main process cannot know.
    """
    try:
        return main() or 0
    except RosaError as error:
        if distributed.is_main() or isinstance(error, OutOfMemoryError):
            print_error(error)
        if not distributed.is_main():
            distributed.let_main_speak()
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def print_error(error: RosaError) -> None:
    """Print an error to standard error in two lines, the second one naming where to find help."""
    lines = [line.strip() for line in str(error).splitlines()]
    print(f"error: {' '.join(lines)}", file=sys.stderr)
    if error.exit_status == 1:
        print("help: python scripts/status.py lists the runs that failed or stopped", file=sys.stderr)
    else:
        print(f"help: python scripts/{Path(sys.argv[0]).name} --help", file=sys.stderr)


def nearest(name: str, options: Iterable[str]) -> str:
    """``"; did you mean X?"`` where an option is close to the name, else an empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def silence_transformers() -> None:
    """Turn off transformers' log lines and progress bars; the project prints its own."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def first_line(kind: str, message: str) -> str:
    """An error in one line: its type, and the first line of its message if it has one."""
    lines = message.strip().split("\n")  # other line ends may stand in a quoted value
    return ": ".join(part for part in (kind, *lines[:1]) if part)
