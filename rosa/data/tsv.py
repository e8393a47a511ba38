"""Read the tab-separated files of the official GLUE download.

The format has no quoting: a double quote is a character like any other (MRPC has unbalanced ones). Lines end with LF
or CRLF and with nothing else, although the texts hold characters that Python's ``str.splitlines`` takes for line ends.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rosa.config import TaskConfig
from rosa.data.base import DataError, RowCollector, Split
from rosa.data.files import column_position, decode, read


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
    content = read(path)
    lines = decode(content, path).split("\n")
    if lines[-1] == "":  # what follows the last line's end
        lines.pop()
    local = task.local
    header_lines = 0 if local.columns else 1
    if len(lines) <= header_lines:
        raise DataError(f"{path}: no rows")
    columns = local.columns or _fields(lines[0])
    where = f"{path}:1: the header" if header_lines else "task.local.columns"
    positions = [column_position(name, columns, where) for name in (*local.texts, local.label)]

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


def _fields(line: str) -> list[str]:
    return line.removesuffix("\r").split("\t")
