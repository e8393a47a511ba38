"""The results of a benchmark: a table for readers, and rows for a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.timing import Spread
from rosa.report.figures.style import Picture
from rosa.report.formatting import significant as number
from rosa.report.tables.table import Cell, Line, Span, Table

CSV_COLUMNS = ("benchmark", "case", "quantity", "unit", "value", "lower_quartile", "upper_quartile", "samples")


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV file."""

    case: str
    """The method, padding or shape that was measured."""
    quantity: str
    unit: str
    value: Spread | float | str


@dataclass(frozen=True)
class Findings:
    """The results of one benchmark."""

    table: Table
    measurements: tuple[Measurement, ...]
    further: tuple[Table, ...] = ()
    """Further tables."""
    pictures: tuple[Picture, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The main table, then the further ones."""
        return (self.table, *self.further)


def with_quartiles(value: Spread, scale: float = 1.0) -> str:
    """``median (lower quartile–upper quartile)``; the median alone where it is the only value."""
    if value.count == 1:
        return number(scale * value.median)
    return f"{number(scale * value.median)} ({number(scale * value.low)}–{number(scale * value.high)})"


def row(*texts: str) -> tuple[Cell, ...]:
    """A table row of cells without styles."""
    return tuple(Cell(text) for text in texts)


def note(text: str) -> Line:
    """A note without styles."""
    return (Span(text),)


def facts_table(name: str, caption: str, facts: Mapping[str, object]) -> Table:
    """A table of names and values."""
    rows = tuple(row(key, str(value)) for key, value in facts.items())
    return Table(name, caption, ("", "value"), rows, ())


def long_csv(found: Mapping[str, Findings], facts: Mapping[str, Mapping[str, object]]) -> str:
    """All measurements as CSV, one quantity a line, followed by the facts, each under its group's name."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, findings in found.items():
        for line in findings.measurements:
            writer.writerow([name, line.case, line.quantity, line.unit, *_columns(line.value)])
    for group, members in facts.items():
        for key, value in members.items():
            writer.writerow([group, "", key, "", *_columns(str(value))])
    return out.getvalue()


def _columns(value: Spread | float | str) -> Sequence[object]:
    if isinstance(value, Spread):
        return value.median, value.low, value.high, value.count
    return value, "", "", ""
