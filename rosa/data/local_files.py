"""Read local files: the tab-separated ones of the official GLUE download, the comma-separated ones of E2E NLG.

GLUE's format has no quoting: a double quote is a character like any other (MRPC has unbalanced ones). Lines end with LF
or CRLF and with nothing else, although the texts hold characters that Python's ``str.splitlines`` takes for line ends.
In E2E's, quoted fields may hold commas, quotes and line ends.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from rosa.config import TaskConfig
from rosa.data.base import RowCollector, Split, listing, shorten
from rosa.errors import DataError


def read_csv(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
    """Read and check one file, whose first line names its columns.

    Args:
        folder: of the file.
        file_name: the file in it.
        task: its ``local`` part says which columns to take.
        skip_malformed: leave malformed rows out and count them.

    Raises:
        DataError: the file is missing, is not UTF-8, is no CSV, lacks a column or has no rows; or a row is malformed
            (with the line that it starts on), unless ``skip_malformed``.
    """
    path = folder / file_name
    content = read(path)
    found = csv_fields(content, path)
    _, columns = next(found, (1, []))
    positions = [column_position(name, columns, f"{path}:1: the header") for name in task.local.texts]
    rows = RowCollector(task, str(path), ":", skip_malformed)
    for line, values in found:
        if len(values) == len(columns):
            rows.add(line, [values[position] for position in positions], None)
        else:
            rows.refuse(line, wrong_number(values, columns))
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": file_name})


def csv_fields(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row starts, and its fields; the first row is the header.

    Raises:
        DataError: not UTF-8, or no CSV, with the line.
    """
    # Line ends are the reader's business: those inside quotes belong to the text.
    reader = csv.reader(io.StringIO(decode(content, path), newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line}: no CSV: {error}; a quoted field starts and ends with a quote") from error


def wrong_number(values: Sequence[str], columns: Sequence[str]) -> str:
    """What is wrong with a row that has not a field for each column."""
    return f"{len(values)} comma-separated fields, expected {len(columns)}" if values else "empty line"


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


def read_tsv(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
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
    content = read(path)
    lines = decode(content, path).split("\n")
    if lines[-1] == "":  # what follows the last line's end
        lines.pop()
    local = task.local
    header_lines = 0 if local.columns else 1
    if len(lines) <= header_lines:
        raise DataError(f"{path}: no rows")
    columns = local.columns or _tsv_fields(lines[0])
    where = f"{path}:1: the header" if header_lines else "task.local.columns"
    positions = [column_position(name, columns, where) for name in (*local.texts, local.label)]

    rows = RowCollector(task, str(path), ":", skip_malformed)
    for number, line in enumerate(lines[header_lines:], start=1 + header_lines):
        values = _tsv_fields(line)
        if len(values) != len(columns):
            problem = f"{len(values)} tab-separated columns, expected {len(columns)}" if line.strip() else "empty line"
            rows.refuse(number, problem)
            continue
        *texts, label = (values[position] for position in positions)
        rows.add(number, texts, label)
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": f"{local.folder}/{file_name}"})


def _tsv_fields(line: str) -> list[str]:
    return line.removesuffix("\r").split("\t")
