"""Published scores of other work, read from CSV files that name each score's source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from rosa.config import registry
from rosa.errors import ReportError
from rosa.report import formatting

COLUMNS = ["model", "task", "method", "metric", "mean", "std", "trainable_parameters", "source", "note"]


@dataclass(frozen=True)
class Published:
    """One published score."""

    model: str
    """Name of the model, as in ``model.name``."""
    task: str
    method: str
    metric: str
    mean: float
    """As printed: fractions in percent."""
    deviation: float | None
    trainable: int | None
    """As published, with or without the head; None where the source does not say."""
    source: str
    """Authors and year, then where."""
    note: str

    @property
    def score(self) -> float:
        """The mean, on the scale of the records."""
        return self.mean / formatting.scale(self.metric)

    @property
    def spread(self) -> float | None:
        """The standard deviation, on the scale of the records."""
        return None if self.deviation is None else self.deviation / formatting.scale(self.metric)

    @property
    def label(self) -> str:
        """``LoRA (Hu et al. 2021)``."""
        return f"{registry.label(self.method)} ({self.source.split(',')[0]})"


def read_published(path: Path) -> list[Published]:
    """The scores in a CSV file with the columns ``COLUMNS``.

    Raises:
        ReportError: the file cannot be read, or a line is wrong; names file and line.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != COLUMNS:
                raise ReportError(f"{path}:1: columns {reader.fieldnames}, expected {COLUMNS}")
            return [_entry(row, f"{path}:{reader.line_num}") for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot read published numbers: {error}") from error


def read_all_published(folder: Path) -> list[Published]:
    """The scores in every CSV file of a folder; empty if there is no such folder.

    Raises:
        ReportError: as :func:`read_published`.
    """
    return [entry for path in sorted(folder.glob("*.csv")) for entry in read_published(path)]


def _entry(row: dict[str, str], place: str) -> Published:
    if None in row or None in row.values():
        raise ReportError(f"{place}: expected {len(COLUMNS)} fields ({', '.join(COLUMNS)})")
    for key in ("model", "task", "method", "metric", "source"):
        if not row[key]:
            raise ReportError(f"{place}: {key} is empty; every published number needs one")
    try:
        mean, deviation = float(row["mean"]), float(row["std"]) if row["std"] else None
        trainable = int(row["trainable_parameters"]) if row["trainable_parameters"] else None
    except ValueError as error:
        raise ReportError(f"{place}: {error}; mean and std are numbers, trainable_parameters a whole number") from error
    names = (row["model"], row["task"], row["method"], row["metric"])
    return Published(*names, mean, deviation, trainable, row["source"], row["note"])
