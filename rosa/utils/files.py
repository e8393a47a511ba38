"""Files: replaced atomically, locked, decoded, parsed, hashed and found.

A process that is killed, or a full disk, leaves the old file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rosa.errors import CheckpointError, OutputError, RosaError
from rosa.utils.allocation import is_out_of_memory
from rosa.utils.console import first_line

TORCH_SAVE = ("inline_container.cc", "iostream error", "Parent directory")
"""Parts of the messages of the RuntimeErrors that ``torch.save`` raises if it cannot write."""

MISPLACED = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""The OSErrors that say that a file is not where it belongs; all others may pass."""


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
    with writing(path):
        replace(path, content)


def refuse_unwritable(folder: Path, option: str) -> None:
    """Refuse a folder in which nothing can be written, before any work is done for it; nothing is left behind.

    If the folder does not exist yet, its nearest existing parent is tested.

    Args:
        folder: the folder to test.
        option: the option that named it, as written before the value: ``results_dir=``, ``--out ``.

    Raises:
        OutputError: the message names the option and the folder.
    """
    try:
        # A temporary file, unnamed where the system supports it, meets the same obstacles as any other file.
        tempfile.TemporaryFile(dir=next(place for place in (folder, *folder.parents) if place.exists())).close()
    except OSError as error:
        raise OutputError(f"{option}{folder}: cannot be written: {error.strerror or error}") from error


def refuse_unwritable_file(path: Path, option: str) -> None:
    """As :func:`refuse_unwritable`, for the folder of a file; the file may exist.

    Raises:
        OutputError: the message names the option and the file or folder.
    """
    if path.is_dir():
        raise OutputError(f"{option}{path}: is a folder, expected a file")
    refuse_unwritable(path.parent, option)


@contextlib.contextmanager
def writing(path: Path, kind: type[RosaError] = OutputError) -> Iterator[None]:
    """Convert a failure to write in the block (no permission, a full disk) to an error of ``kind`` that names ``path``.

    safetensors and ``torch.save`` raise their own errors, which are not OSErrors. A RosaError passes unchanged.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RosaError) or (
            isinstance(error, RuntimeError) and not any(text in str(error) for text in TORCH_SAVE)
        ):
            raise
        raise kind(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert any error from reading a file of a checkpoint, or its folder, into one that names ``path``.

    The optimizer's and the random numbers' state are read with ``weights_only=True``, which refuses to run code.

    Memory that is not enough says nothing about the file: that error passes unchanged.

    Raises:
        CheckpointError: the content is not what a training of this project has written; or the file is there, but
            cannot be read now.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RosaError) or is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and not isinstance(error, MISPLACED):
            raise CheckpointError(
                f"{path}: cannot be read ({error}). Run it again once it can be, or start over with train.force=true"
            ) from error
        raise CheckpointError(
            f"{path}: not a checkpoint of this run ({first_line(type(error).__name__, str(error))}). Remove it, or "
            "start over with train.force=true"
        ) from error


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


@contextlib.contextmanager
def locked(
    lock: Path, busy: RosaError, refused: Callable[[OSError], RosaError], patience: float = 0.0
) -> Iterator[None]:
    """Hold a lock that the system releases when its holder dies.

    Args:
        lock: its file; the folder is created if missing.
        busy: raised if another process holds it.
        refused: makes the error that is raised if the file cannot be written.
        patience: seconds to wait for another process that holds it; 0 does not wait.
    """
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=patience)
        held.acquire()
    except Timeout as error:
        raise busy from error
    except OSError as error:
        raise refused(error) from error
    try:
        yield
    finally:
        held.release()


def decode(content: bytes, path: Path, kind: type[RosaError]) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Args:
        content: the file's bytes.
        path: the file's name, for the message.
        kind: of the error raised if it is not UTF-8 or has a NUL character; the message names the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.start and error.object both exclude a byte-order mark.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise kind(f"{path}:{line}: not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})") from None
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise kind(f"{path}:{line}: a NUL character, which no text has, as in UTF-16 or a damaged file; expected UTF-8")
    return text


def read_json(path: Path, kind: type[RosaError], what: str) -> Any:
    """The value in a JSON file.

    Args:
        path: of the file.
        kind: of the error raised if it cannot be read, decoded or parsed; the message names the file.
        what: is expected there, such as ``a readable record``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise kind(f"{path}: not {what}: {error.strerror}") from error
    text = decode(content, path, kind)
    try:
        return parse_json(text, kind)
    except kind as error:
        raise kind(f"{path}: not {what}: {error}") from error


def parse_json(text: str, kind: type[RosaError]) -> Any:
    """The value of a JSON text.

    Args:
        text: as in a file or on one of its lines.
        kind: of the error raised if it is not JSON, or more than Python reads; the message says in a few words what is
            wrong, and where in the text.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        what = error.msg.removesuffix(" at").removesuffix(" starting")
        raise kind(f"not JSON at {line}character {error.colno}: {what[:1].lower()}{what[1:]}") from None
    except RecursionError:
        raise kind("brackets are nested too deep") from None
    except ValueError:  # of int()
        raise kind(f"a number has more than {sys.get_int_max_str_digits():,} digits") from None
