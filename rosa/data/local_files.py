"""Read local files (``data=local``): the TSV files of the official GLUE download and the CSV files of E2E NLG.

GLUE's TSV has no quoting: a double quote is an ordinary character (MRPC has unbalanced ones). Only LF and CRLF end a
line; the texts contain other characters that Python's ``str.splitlines`` would split at. In E2E's CSV a quoted field
may contain commas, quotes and line ends.
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
from rosa.utils import files
from rosa.utils.console import nearest


def read_split(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
    """Read and check the file of one split: CSV for text generation, otherwise TSV.

    Args:
        folder: the file's folder.
        file_name: its name.
        task: ``task.local`` names the columns to read, and all columns if the file has no header line.
        skip_malformed: skip and count malformed rows.

    Raises:
        DataError: the file is missing, not UTF-8, not valid CSV, lacks a column or has no rows; or a row is malformed
            (the message names its first line), unless ``skip_malformed``.
    """
    path, local = folder / file_name, task.local
    content = read(path)
    separator = "comma" if task.kind == "generation" else "tab"
    wanted = [*local.texts, *([local.label] if task.is_labelled else [])]
    rows = RowCollector(task, str(path), ":", skip_malformed)
    for line, values in rows_of(content, path, separator, wanted, local.columns):
        if isinstance(values, str):
            rows.refuse(line, values)
        else:
            rows.add(line, values[: len(local.texts)], values[-1] if task.is_labelled else None)
    place = f"{local.folder}/{file_name}" if local.folder else file_name
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": place})


def rows_of(
    content: bytes,
    path: Path,
    separator: str,
    wanted: Sequence[str],
    columns: Sequence[str] = (),
    setting: str = "task.local",
) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line, values of the wanted columns, or what is wrong with the row) for each row of a CSV or TSV file.

    Args:
        content: of the file.
        path: its name, for messages.
        separator: ``comma`` or ``tab``.
        wanted: names of columns.
        columns: of a file without a header line; empty if its first line is the header.
        setting: the configuration key that names the columns, for messages.

    Raises:
        DataError: as :func:`fields`; or a column is missing.
    """
    found = fields(content, path, separator)
    where = f"{setting}.columns" if columns else f"{path}:1: the header"
    if not columns:
        header = next(found, None)
        if header is None:
            return
        _, columns = header
    positions = [column_position(name, columns, where, setting) for name in wanted]
    for line, values in found:
        right = len(values) == len(columns)
        yield line, [values[at] for at in positions] if right else wrong_number(values, columns, separator)


def fields(content: bytes, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """:func:`csv_fields` if ``separator`` is ``comma``, :func:`tsv_fields` if it is ``tab``."""
    return csv_fields(content, path) if separator == "comma" else tsv_fields(content, path)


def csv_fields(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, fields) of each row; the first row is the header.

    Raises:
        DataError: as :func:`decode`, or the file is not valid CSV; the message names the line.
    """
    # newline="" leaves line ends to the reader: inside quotes they are part of the text.
    reader = csv.reader(io.StringIO(decode(content, path), newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise DataError(
                f"{path}:{line}: a field has more than {csv.field_size_limit():,} characters, as after a quote that is "
                "never closed; expected shorter texts, and a quote in a text written twice"
            ) from error
        raise DataError(
            f"{path}:{line}: not valid CSV: {error}; a quoted field starts and ends with a double quote"
        ) from error


def tsv_fields(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of each line; a blank line has no fields.

    Raises:
        DataError: as :func:`decode`.
    """
    lines = decode(content, path).split("\n")
    if lines[-1] == "":  # the text after the last line end
        lines.pop()
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix("\r")
        yield number, text.split("\t") if text.strip() else []


def wrong_number(values: Sequence[str], columns: Sequence[str], separator: str) -> str:
    """Describe a row whose number of fields is not that of the columns; ``separator`` is ``comma`` or ``tab``."""
    return f"{len(values)} {separator}-separated fields, expected {len(columns)}" if values else "empty line"


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it is missing (the message lists the files of its folder) or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        held = listing(sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else "nothing"
        raise DataError(f"{path}: no such file; its folder contains {held}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r}: cannot be the name of a file: {error}") from error


def expanded(name: str) -> Path:
    """The path of a file or folder, with ``~`` for a home folder.

    Raises:
        DataError: the user after ``~`` has no home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise DataError(f"{name}: no user {name.split('/')[0][1:]!r} with a home folder") from None


def decode(content: bytes, path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Raises:
        DataError: it is not UTF-8, or has a NUL character; the message names the line.
    """
    return files.decode(content, path, DataError)


def column_position(name: str, columns: Sequence[str], where: str, key: str) -> int:
    """The index of a column.

    Args:
        name: the column's name.
        columns: all column names, in order.
        where: the place that lists the columns, for the message: a file's header or a configuration key.
        key: the configuration key that names the column, for the message.

    Raises:
        DataError: no column (the message suggests the nearest name) or several columns have this name.
    """
    if columns.count(name) == 1:
        return columns.index(name)
    if name in columns:
        raise DataError(f"{where} has {columns.count(name)} columns named {name!r}; expected one")
    held = listing([shorten(column) for column in columns])
    hint = nearest(name, columns)
    if any("\r" in column for column in columns):  # no name of a column: a file with the line ends of old Macs
        hint = "; a carriage return alone ends no line, expected a line feed"
    raise DataError(f"{where} has no column {name!r} ({key}); it has {held}{hint}")
