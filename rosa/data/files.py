"""Read a task from the user's files (``data=files``), one per split: CSV, TSV, JSON lines or Parquet.

The columns are ``task.texts`` and ``task.label``; other columns are ignored. Every CSV or TSV value is text: none is
parsed as a number, a date or a missing value. In a TSV file a quote is an ordinary character. JSON and Parquet are
typed: a label may be a string, a number or a boolean.

``datasets.load_dataset`` reads none of them: it takes a file's name for a pattern (``g[1].parquet`` is ``g1.parquet``),
and pandas, with which it reads CSV, shifts all columns by one if a row has a field too many, reads the texts ``NA`` and
``null`` as missing, and reports no line numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.config import TRAIN, DataConfig, TaskConfig
from rosa.data.base import RowCollector, Split, is_number, listing, problem_of_text, resolved_task, shorten
from rosa.data.local_files import column_position, decode, expanded, fields, wrong_number
from rosa.data.local_files import read as read_bytes
from rosa.errors import DataError
from rosa.utils.files import parse_json

if TYPE_CHECKING:
    import pyarrow

Row = tuple[int, Mapping[str, Any] | str]
"""(line number, or in Parquet the row number from 0; values by column, or a description of what is wrong)."""
Table = tuple[list[str], Iterator[Row]]
"""(column names, rows)."""


def read(task: TaskConfig, data: DataConfig) -> tuple[dict[str, Split], dict[str, Any]]:
    """Read all splits of a task, and the facts about them for the record.

    If the configuration names no labels, they are the distinct labels of the training file, sorted (whole numbers by
    value), and are added to the facts as ``labels``.

    Raises:
        DataError: a file is missing, empty, of an unknown format or unreadable, or lacks a column; a row is malformed,
            unless ``data.skip_malformed``; or all labels are equal. The message names the file and the line or column.
    """
    facts: dict[str, Any] = {"source": "files"}
    splits = {}
    for name in task.splits:  # the training split is the first one
        path = expanded(data.files[name])
        content, found = read_rows(path, _wanted(task))
        collector = RowCollector(task, str(path), row_mark(path), data.skip_malformed)
        rows = []
        for number, values in found:
            problem = values if isinstance(values, str) else _problem_of_label(values.get(task.label), task.label)
            if isinstance(values, str) or problem:
                collector.refuse(number, str(problem))
            else:
                rows.append((number, [values.get(column) for column in task.texts], _label(values.get(task.label))))
        if name == TRAIN and task.kind == "classification" and not task.labels:
            facts["labels"] = _labels([label for *_, label in rows if label is not None], task.label, path)
            task = collector.task = resolved_task(task, facts)
        for number, texts, label in rows:
            collector.add(number, texts, label)
        splits[name] = collector.finish(hashlib.sha256(content).hexdigest(), {"file": path.name})
        _refuse_constant(splits[name], name, path, task)
    return splits, facts


def _wanted(task: TaskConfig) -> list[tuple[str, str]]:
    """(configuration key, column) of each column that the task reads."""
    return [*(("task.texts", name) for name in task.texts), *([("task.label", task.label)] if task.is_labelled else [])]


def read_rows(path: Path, wanted: Sequence[tuple[str, str]]) -> tuple[bytes, Iterator[Row]]:
    """The bytes of a file, and its rows.

    Args:
        path: of the file; its suffix determines the format.
        wanted: (configuration key, column) of each column that it must have.

    Raises:
        DataError: it is missing, empty, of an unknown format or unreadable, or lacks a column.
    """
    content = read_bytes(path)
    if not content:
        raise DataError(f"{path}: the file is empty")
    columns, rows = _table(path, content, [column for _, column in wanted])
    for key, column in wanted:
        column_position(column, columns, str(path), key)
    return content, rows


def row_mark(path: Path) -> str:
    """Text between a file's name and the number of a row in messages."""
    return ", row " if path.suffix.lower() == ".parquet" else ":"


# --- labels ----------------------------------------------------------------------------------------------------------


def _problem_of_label(value: Any, column: str) -> str | None:
    """What is wrong with a label, other than that it is missing or not one of the task's; None if nothing is."""
    if isinstance(value, (list, dict)):
        return f"{column} is {shorten(value)}; expected a string, a number or a boolean"
    return problem_of_text(column, value) if isinstance(value, str) else None


def _label(value: Any) -> Any:
    """A label of any JSON or Parquet type as text; None if it is missing or empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Parquet stores integers with missing values as floats
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))  # pandas writes NaN
    return None if missing else str(value)


def _labels(labels: Sequence[str], column: str, path: Path) -> list[str]:
    """The distinct labels of a file, sorted.

    Raises:
        DataError: there are fewer than two, or as many as rows.
    """
    found = sorted(set(labels))
    if len(found) < 2:
        held = f"only the label {shorten(found[0])}" if found else "no labels"
        raise DataError(f"{path}: the column {column!r} has {held}; expected at least two different labels")
    if len(found) == len(labels) > 2:
        raise DataError(
            f"{path}: every row has a different label in the column {column!r}, such as {listing(found[:3])}; set "
            "task.label to the column of the labels, or use task=text_regression if the labels are numbers"
        )
    return sorted(found, key=int) if all(map(is_number, found)) else found


def _refuse_constant(split: Split, name: str, path: Path, task: TaskConfig) -> None:
    """Raise if all labels of a split are equal: nothing to learn from in training, no correlation in regression."""
    if task.is_labelled and len(set(split.labels)) == 1 and (name == TRAIN or task.kind == "regression"):
        only = task.labels[int(split.labels[0])] if task.kind == "classification" else f"{split.labels[0]:g}"
        raise DataError(
            f"{path}: every row has the label {listing([only])} in the column {task.label!r}; expected at least two "
            "different labels"
        )


# --- file formats ----------------------------------------------------------------------------------------------------


def _table(path: Path, content: bytes, wanted: Sequence[str]) -> Table:
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _separated(path, content, "comma" if kind == ".csv" else "tab")
    if kind in (".json", ".jsonl"):
        return _json_lines(path, content)
    if kind == ".parquet":
        return _parquet(path, content, wanted)
    raise DataError(f"{path}: unknown format; expected a file name ending in .csv, .tsv, .json, .jsonl or .parquet")


def _separated(path: Path, content: bytes, separator: str) -> Table:
    found = fields(content, path, separator)
    _, columns = next(found, (1, []))

    def rows() -> Iterator[Row]:
        for line, values in found:
            right = len(values) == len(columns)
            yield line, dict(zip(columns, values, strict=True)) if right else wrong_number(values, columns, separator)

    return columns, rows()


def _json_lines(path: Path, content: bytes) -> Table:
    found = [(line, _object(text)) for line, text in enumerate(decode(content, path).split("\n"), 1) if text.strip()]
    first = next((row for _, row in found if not isinstance(row, str)), None)
    if first is None:
        line, problem = found[0] if found else (1, "no rows")
        raise DataError(f"{path}:{line}: {problem}")
    return list(first), iter(found)


def _object(text: str) -> dict[str, Any] | str:
    expected = 'expected a JSON object on each line, such as {"text": ...}'
    try:
        row = parse_json(text, DataError)
    except DataError as error:
        return f"{error}; {expected}"
    return row if isinstance(row, dict) else f"{expected}; found {shorten(row)}"


def _parquet(path: Path, content: bytes, wanted: Sequence[str]) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        classes = _class_names(table.schema)
    except Exception as error:  # pyarrow raises many types
        raise DataError(f"{path}: cannot be read as Parquet; it is damaged, or a file of another format") from error

    def rows() -> Iterator[Row]:
        for number, values in enumerate(zip(*map(table.column, wanted), strict=True)):
            try:
                yield number, {name: _value(name, one, classes) for name, one in zip(wanted, values, strict=True)}
            except DataError as error:
                yield number, str(error)

    return table.column_names, rows()


def _class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Column -> the names of its classes, which ``datasets`` writes into a file's metadata."""
    features = (json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info") or {}).get("features") or {}
    described = {name: one for name, one in features.items() if isinstance(one, dict)}  # others are lists
    return {name: list(one["names"]) for name, one in described.items() if one.get("_type") == "ClassLabel"}


def _value(column: str, scalar: pyarrow.Scalar, classes: Mapping[str, list[str]]) -> Any:
    """A value of a Parquet file, a class by its name; None for a class of -1, which marks a row without a label.

    Raises:
        DataError: it is text that is not UTF-8, a value that Python does not have, or a class without a name.
    """
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        raise DataError(f"{column} is not UTF-8") from None
    except Exception as error:  # such as a date after the year 9999; pyarrow raises many types
        raise DataError(f"{column} is a {scalar.type} that cannot be read") from error
    names = classes.get(column)
    if names is None or not isinstance(value, int):
        return value
    if not -1 <= value < len(names):
        raise DataError(f"{column} is class {value}; the file names {len(names)} classes, from 0")
    return None if value == -1 else names[value]
