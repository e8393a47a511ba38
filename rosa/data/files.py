"""What readers of text files share: their bytes, their encoding, the place of a column."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from rosa.data.base import DataError, listing, shorten


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it is missing (with what its folder holds), or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        held = listing(sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else "nothing"
        raise DataError(f"{path}: no such file; its folder holds {held}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def decode(content: bytes, path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Raises:
        DataError: it is not UTF-8, with the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from after a byte-order mark, and hands its input along.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})") from None


def column_position(name: str, columns: Sequence[str], where: str) -> int:
    """Where a column stands.

    Args:
        name: of the column.
        columns: all names.
        where: what lists them, for the error: a file's header, or a configuration key.

    Raises:
        DataError: there is no such column (with the nearest name), or more than one.
    """
    if columns.count(name) == 1:
        return columns.index(name)
    if name in columns:
        raise DataError(f"{where} names {name!r} {columns.count(name)} times")
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"; did you mean {near[0]!r} (task.local)?" if near else ""
    raise DataError(f"{where} has no column {name!r}, it has {listing([shorten(column) for column in columns])}{hint}")
