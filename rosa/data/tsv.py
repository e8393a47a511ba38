"""Read the tab-separated files of the official GLUE download.

The format has no quoting: a double quote is a character like any other (MRPC has unbalanced ones). Lines end with LF
or CRLF and with nothing else, although the texts hold characters that Python's ``str.splitlines`` takes for line ends.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from rosa.config import LocalTaskConfig, TaskConfig
from rosa.data.base import DataError, RowCollector, Split, listing, shorten


def read_split(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
    """Read and check one file.

    Args:
        folder: the task's folder.
        file_name: the file in it.
        task: its ``local`` part says which columns to take, and names them where the file has no header line.
        skip_malformed: leave malformed rows out and count them.

    Raises:
        DataError: the file is missing, is not UTF-8, lacks a column or has no rows; or a row is malformed (with the
            line's number), unless ``skip_malformed``.
    """
    path = folder / file_name
    content = _read(path)
    lines = _decode(content, path).split("\n")
    if lines[-1] == "":  # what follows the last line's end
        lines.pop()
    local = task.local
    header_lines = 0 if local.columns else 1
    if len(lines) <= header_lines:
        raise DataError(f"{path}: no rows")
    columns = local.columns or _fields(lines[0])
    positions = [_position(name, columns, path, has_header=bool(header_lines)) for name in _wanted(local)]

    rows = RowCollector(task, str(path), ":", skip_malformed)
    for number, line in enumerate(lines[header_lines:], start=1 + header_lines):
        values = _fields(line)
        if len(values) != len(columns):
            problem = f"{len(values)} tab-separated columns, expected {len(columns)}" if line.strip() else "empty line"
            rows.refuse(number, problem)
            continue
        *texts, label = (values[position] for position in positions)
        rows.add(number, texts, label)
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": f"{local.folder}/{file_name}"})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        held = listing(sorted(entry.name for entry in path.parent.iterdir()))
        raise DataError(f"{path}: no such file; its folder holds {held}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from after a byte-order mark, and hands its input along.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})") from None


def _fields(line: str) -> list[str]:
    return line.removesuffix("\r").split("\t")


def _wanted(local: LocalTaskConfig) -> list[str]:
    return [*local.texts, local.label]


def _position(name: str, columns: list[str], path: Path, *, has_header: bool) -> int:
    if columns.count(name) == 1:
        return columns.index(name)
    where = f"{path}:1: the header" if has_header else "task.local.columns"
    if name in columns:
        raise DataError(f"{where} names {name!r} {columns.count(name)} times")
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"; did you mean {near[0]!r} (task.local)?" if near else ""
    raise DataError(f"{where} has no column {name!r}, it has {listing([shorten(column) for column in columns])}{hint}")
