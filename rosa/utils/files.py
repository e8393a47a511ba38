"""Atomic file replacement: after a kill or on a full disk, the old or the new file is there, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from rosa.errors import OutputError


def replace(path: Path, content: str | bytes) -> None:
    """Replace a file by ``content`` (text as UTF-8, newlines unchanged); create its folder if missing.

    Raises:
        OSError: it cannot be written; the old file is kept, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the atomic step, named explicitly
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
