"""Texts without labels: the test splits of GLUE, and a user's own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rosa.config import DataConfig, TaskConfig
from rosa.data import files, hub, local_files, sources
from rosa.data.base import shorten
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
        found, _ = hub.fetch(data.path, AX if split == AX else data.name or task.name, data.revision)
        table = found.get(TEST if split == AX else split)
        if table is None:
            raise DataError(f"{data.path} {task.name}: no split {split!r}, it has {', '.join(found)}")
        return _checked([table[column][:] for column in task.texts], f"{data.path}, split {split}")
    if data.source == "local":
        root = Path(data.dir).expanduser()
        for folder in (root / task.name, root):
            if (folder / sources.SAVED_MARK).is_file():
                saved = sources.load_saved(folder).get(split)
                if saved is None:
                    raise DataError(f"{folder}: no split {split!r}")
                return _checked([saved[column][:] for column in task.texts], f"{folder}, split {split}")
        path = root / AX_FILE if split == AX else root / task.local.folder / f"{split}.tsv"
        found_rows = local_files.tsv_fields(local_files.read(path), path)
        _, columns = next(found_rows, (1, []))
        names = task.local.texts
        positions = [local_files.column_position(name, columns, f"{path}:1: the header", "texts") for name in names]
        texts: Texts = [[] for _ in positions]
        for line, values in found_rows:
            if len(values) != len(columns):
                raise DataError(f"{path}:{line}: {local_files.wrong_number(values, columns, 'tab')}")
            for column, position in zip(texts, positions, strict=True):
                column.append(values[position])
        return _checked(texts, str(path))
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
    content = local_files.read(path)
    if not content:
        raise DataError(f"{path}: the file is empty")
    header, rows = files.table(path, content)
    for column in columns:
        local_files.column_position(column, header, str(path), "task.texts")
    texts: Texts = [[] for _ in columns]
    for number, values in rows:
        if isinstance(values, str):
            raise DataError(f"{path}:{number}: {values}")
        for wanted, found in zip(columns, texts, strict=True):
            value = values.get(wanted)
            if not isinstance(value, str):
                raise DataError(f"{path}:{number}: {wanted} is {shorten(value)}, expected a text")
            found.append(value)
    return _checked(texts, str(path))


def _checked(texts: Texts, place: str) -> Texts:
    if not texts[0]:
        raise DataError(f"{place}: no rows")
    return texts
