"""Files: replaced atomically (after a kill or on a full disk, the old or the new one is there), hashed and found."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
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


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_folder(path: str) -> Path | None:
    """The folder that ``package/inner/folder`` names; None if the package, which is not imported, is not installed."""
    package, _, inner = path.partition("/")
    spec = importlib.util.find_spec(package)
    found = spec.submodule_search_locations if spec else None
    return Path(found[0]) / inner if found else None
