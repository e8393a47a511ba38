"""Texts without labels: the test splits of GLUE, and a user's own file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rosa.config import DataConfig, TaskConfig
from rosa.data import files, hub, local_files, saved, sources
from rosa.data.base import problem_of_text
from rosa.errors import DataError
from rosa.mini import text as mini_text

TEST = "test"
AX = "ax"
"""GLUE's diagnostic set, for models of MNLI."""
AX_FILE = Path("diagnostic", "diagnostic.tsv")
"""Path of the file in the official download."""

Texts = list[list[str]]
"""One or two columns."""


def test_splits(task: TaskConfig) -> list[str]:
    """The test splits of a task as the hub names them: MNLI has two, and the diagnostic set."""
    return [f"{TEST}_matched", f"{TEST}_mismatched", AX] if task.name == "mnli" else [TEST]


def read_split(task: TaskConfig, data: DataConfig, split: str) -> Texts:
    """The texts of a split whose labels are unknown; labels in the files are not read.

    Raises:
        DataError: the source has no such split, or it cannot be read.
    """
    if data.source == "hub":
        name = AX if split == AX else data.name or task.name
        found, _ = hub.fetch(data.path, name, data.revision)
        return _of_table(found, TEST if split == AX else split, task, f"{data.path} {name}")
    if data.source == "local":
        folder, is_saved = sources.local_folder(task, data)
        if is_saved:
            return _of_table(saved.load(folder), split, task, str(folder))
        path = local_files.expanded(data.dir) / AX_FILE if split == AX else folder / f"{split}.tsv"
        rows = local_files.rows_of(local_files.read(path), path, "tab", task.local.texts)
        return _collect(rows, task.local.texts, str(path), ":")
    if data.source == "mini" and split != AX:
        # Drawn as the evaluation split of this name is, with the next seed.
        name = split.replace(TEST, "validation", 1)
        made = mini_text.examples(task.name, name, data.evaluation_size, data.seed + 1)
        return [[row[column] for row in made] for column in task.texts]
    raise DataError(f"data.source={data.source}: no split {split!r}; expected one of {', '.join(task.splits)}")


def read_file(path: Path, columns: Sequence[str]) -> Texts:
    """The texts of a user's own file: CSV, TSV, JSON lines or Parquet, with these columns.

    Raises:
        DataError: it cannot be read, a column is missing, or a row is malformed.
    """
    _, rows = files.read_rows(path, [("task.texts", column) for column in columns])
    picked = ((number, row if isinstance(row, str) else [row.get(name) for name in columns]) for number, row in rows)
    return _collect(picked, columns, str(path), files.row_mark(path))


def _of_table(found: sources.Tables, split: str, task: TaskConfig, place: str) -> Texts:
    columns = sources.columns_of(found, split, task.texts, place)
    return _collect(enumerate(zip(*columns, strict=True)), task.texts, f"{place}, split {split}", ", row ")


def _collect(rows: Iterable[tuple[int, Sequence[Any] | str]], columns: Sequence[str], place: str, mark: str) -> Texts:
    """The columns of rows, each of which must have a text in each column; no row is left out.

    Args:
        rows: (number, values or what is wrong with the row).
        columns: names of the values.
        place: of the rows, for messages.
        mark: text between the place and a row's number.
    """
    texts: Texts = [[] for _ in columns]
    for number, values in rows:
        found = [values] if isinstance(values, str) else map(problem_of_text, columns, values)
        if problem := next(filter(None, found), None):
            raise DataError(f"{place}{mark}{number}: {problem}")
        for column, value in zip(texts, values, strict=True):
            column.append(value)
    if not texts[0]:
        raise DataError(f"{place}: no rows")
    return texts
