"""Read the comma-separated files of the E2E NLG Challenge: quoted fields may hold commas, quotes and line ends."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

from rosa.config import TaskConfig
from rosa.data.base import DataError, RowCollector, Split
from rosa.data.files import column_position, decode, read


def read_split(folder: Path, file_name: str, task: TaskConfig, skip_malformed: bool) -> Split:
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
    # Line ends are the reader's business: those inside quotes belong to the text.
    reader = csv.reader(io.StringIO(decode(content, path), newline=""), strict=True)
    rows = RowCollector(task, str(path), ":", skip_malformed)
    line = 1
    try:
        columns = next(reader, [])
        positions = [column_position(name, columns, f"{path}:1: the header") for name in task.local.texts]
        line = reader.line_num + 1
        for values in reader:
            if len(values) == len(columns):
                rows.add(line, [values[position] for position in positions], None)
            else:
                problem = f"{len(values)} comma-separated fields, expected {len(columns)}" if values else "empty line"
                rows.refuse(line, problem)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line}: no CSV: {error}; a quoted field starts and ends with a quote") from error
    return rows.finish(hashlib.sha256(content).hexdigest(), {"file": file_name})
