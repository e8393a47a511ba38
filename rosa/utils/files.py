"""Files that are replaced as a whole: a killed process or a full disk leaves the old or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from rosa.errors import OutputError


def replace(path: Path, content: str | bytes) -> None:
    """Put ``content`` in a file (a text in UTF-8, its newlines as they are), making its folder if need be.

    Raises:
        OSError: it cannot be written; what was there before still is, and no temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the one atomic step, said by its own name
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write(path: Path, content: str | bytes) -> None:
    """:func:`replace` for a file that a user asked for.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        replace(path, content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
