"""A table of the report as the page shows it: each cell with the runs behind it, and what a column sorts by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rosa.report import formats
from rosa.report.comparison import Comparison, Task
from rosa.report.page.runs import Runs
from rosa.report.render import Cell, Line, Table

UNITS = {"": 1.0, "K": 1e3, "M": 1e6}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)([KM]?)")


@dataclass(frozen=True)
class CellView:
    """One cell."""

    shown: Cell
    order: float | None
    """What its column sorts by; None where it shows no number."""
    runs: int | None
    """The number of the cell in :class:`~rosa.report.page.runs.Runs`; None where no runs are behind it."""


@dataclass(frozen=True)
class RowView:
    """One row; the first cell is its heading."""

    heading: Cell
    cells: tuple[CellView, ...]
    method: str
    """What the filter by method goes by; empty where the row has none."""
    task: str
    """The same by task, where the row is of one task alone."""


@dataclass(frozen=True)
class ColumnView:
    """The heading of a column."""

    name: str
    task: str
    """The task that the column shows, for the filter; empty where it is of all of them."""


@dataclass(frozen=True)
class TableView:
    """A table with its lines below; ``warnings`` are those that nobody should miss."""

    caption: str
    columns: tuple[ColumnView, ...]
    rows: tuple[RowView, ...]
    warnings: tuple[Line, ...]
    notes: tuple[Line, ...]


def view(table: Table, comparison: Comparison, runs: Runs, published: Mapping[str, str]) -> TableView:
    """Find the runs behind each cell of a table by the names of its row and column.

    Args:
        table: rows are named by a row of the comparison (and a task), columns by a task, a learning rate, or anything.
        comparison: what the table was made of.
        runs: keeps what a cell leads to.
        published: label -> method of the rows that others published.
    """
    tasks = {_name(task): task for task in comparison.tasks}
    rows = {row.label: (row, _only(comparison)) for row in comparison.rows}
    rows |= {f"{row.label}, {name}": (row, task) for row in comparison.rows for name, task in tasks.items()}
    rates = {
        formats.rate(trial.lr): trial.lr
        for row in comparison.rows
        for result in row.results.values()
        for trial in result.trials
    }
    columns = [ColumnView(name, tasks[name].name if name in tasks else "") for name in table.header]

    def cell(heading: str, name: str, shown: Cell) -> CellView:
        row, task = rows.get(heading, (None, None))
        task = tasks.get(name, task)
        linked = row is not None and task is not None and shown.text != formats.MISSING
        number = runs.cell(row, task, rates.get(name)) if linked and row and task else None
        return CellView(shown, order(shown.text), number)

    def line(cells: tuple[Cell, ...]) -> RowView:
        heading, *rest = cells
        row, task = rows.get(heading.text, (None, None))
        made = tuple(cell(heading.text, name, one) for name, one in zip(table.header[1:], rest, strict=True))
        method = row.method if row else published.get(heading.text, "")
        several = len(tasks) > 1 and task is not None
        return RowView(heading, made, method, task.name if several and task else "")

    loud = tuple(note for note in table.notes if note and note[0].style == "bold")
    quiet = tuple(note for note in table.notes if note not in loud)
    return TableView(table.caption, tuple(columns), tuple(map(line, table.rows)), loud, quiet)


def order(text: str) -> float | None:
    """The first number of a cell: ``71.2 ± 0.4`` is 71.2, ``0.15M + 770 head`` is 150,000; None without one."""
    found = NUMBER.match(text)
    return float(found[1]) * UNITS[found[2]] if found else None


def _name(task: Task) -> str:
    return formats.TASK_NAMES.get(task.name, task.name)


def _only(comparison: Comparison) -> Task | None:
    """The task of an experiment that has one: whatever a column shows, it shows of that."""
    return comparison.tasks[0] if len(comparison.tasks) == 1 else None
