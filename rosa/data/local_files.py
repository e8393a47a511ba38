"""Read local files: the tab-separated ones of the official GLUE download, the comma-separated ones of E2E NLG.

GLUE's format has no quoting: a double quote is a character like any other (MRPC has unbalanced ones). Lines end with LF
or CRLF and with nothing else, although the texts hold characters that Python's ``str.splitlines`` takes for line ends.
In E2E's, quoted fields may hold commas, quotes and line ends.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from rosa.config import TaskConfig
from rosa.data.base import RowCollector, Split, listing, shorten
from rosa.errors import DataError
from rosa.utils.console import nearest


def read_split(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
    """Read and check one file: E2E's CSV for a task of generation, else GLUE's TSV.

    Args:
        folder: of the file.
        file_name: the file in it.
        task: its ``local`` part says which columns to take, and names them where the file has no header line.
        skip_malformed: leave malformed rows out and count them.

    Raises:
        DataError: the file is missing, is not UTF-8, is no CSV, lacks a column or has no rows; or a row is malformed
            (with the line that it starts on), unless ``skip_malformed``.
    """
    path, local = folder / file_name, task.local
    content = read(path)
    separator = "comma" if task.kind == "generation" else "tab"
    found = fields(content, path, separator)
    columns = local.columns or next(found, (1, []))[1]
    where = "task.local.columns" if local.columns else f"{path}:1: the header"
    wanted = [*local.texts, *([local.label] if task.is_labelled else [])]
    positions = [column_position(name, columns, where, "task.local") for name in wanted] if columns else []
    rows = RowCollector(task, str(path), ":", skip_malformed)
    for line, values in found:
        if len(values) == len(columns):
            taken = [values[position] for position in positions]
            rows.add(line, taken[: len(local.texts)], taken[-1] if task.is_labelled else None)
        else:
            rows.refuse(line, wrong_number(values, columns, separator))
    place = f"{local.folder}/{file_name}" if local.folder else file_name
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": place})


def fields(content: bytes, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """:func:`csv_fields` of a file whose separator is a ``comma``, :func:`tsv_fields` where it is a ``tab``."""
    return csv_fields(content, path) if separator == "comma" else tsv_fields(content, path)


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


def tsv_fields(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, and its fields; an empty line has none.

    Raises:
        DataError: not UTF-8, with the line.
    """
    lines = decode(content, path).split("\n")
    if lines[-1] == "":  # what follows the last line's end
        lines.pop()
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix("\r")
        yield number, text.split("\t") if text.strip() else []


def wrong_number(values: Sequence[str], columns: Sequence[str], separator: str) -> str:
    """What is wrong with a row that has not a field for each column; the separator is named as ``comma`` or ``tab``."""
    return f"{len(values)} {separator}-separated fields, expected {len(columns)}" if values else "empty line"


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


def column_position(name: str, columns: Sequence[str], where: str, key: str) -> int:
    """Where a column stands.

    Args:
        name: of the column.
        columns: all names.
        where: what lists them, for the error: a file's header, or a configuration key.
        key: what asks for the column, for the error: a configuration key.

    Raises:
        DataError: there is no such column (with the nearest name), or more than one.
    """
    if columns.count(name) == 1:
        return columns.index(name)
    if name in columns:
        raise DataError(f"{where} names {name!r} {columns.count(name)} times")
    held = listing([shorten(column) for column in columns])
    raise DataError(f"{where} has no column {name!r} ({key}), it has {held}{nearest(name, columns)}")
