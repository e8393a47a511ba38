"""What a user reads when a command is refused: the cause in a line or two, and the nearest valid name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


def nearest(name: str, options: Iterable[str]) -> str:
    """``"; did you mean X?"`` where an option is close to the name, else an empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def complain(error: Exception, aloud: bool = True) -> None:
    """Say one of the project's own errors on standard error; it says all there is to say. Raise any other.

    Args:
        error: what went wrong.
        aloud: False where another process of the same run says it.
    """
    if not type(error).__module__.startswith("rosa."):
        raise error
    if aloud:
        print(f"error: {error}", file=sys.stderr)


def silence_transformers() -> None:
    """Keep transformers' notes and bars off the screen: the project says itself what it does."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def first_line(kind: str, message: str) -> str:
    """An error in one line: its type, and the first line of what it says."""
    return f"{kind}: {message.splitlines()[0]}" if message.strip() else kind
