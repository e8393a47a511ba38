"""A table of the report as the page shows it: each cell with the runs behind it, and what a column sorts by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.html.runs import Runs
from rosa.report.tables.rank_frequency import Grid
from rosa.report.tables.table import Cell, Line, Table

UNITS = {"": 1.0, "K": 1e3, "M": 1e6}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)([KM]?)")


@dataclass(frozen=True)
class CellView:
    """One cell."""

    shown: Cell
    order: float | None
    """What its column sorts by; None where it shows no number."""
    runs: int | None
    """The number of the cell in :class:`~rosa.report.html.runs.Runs`; None where no runs are behind it."""


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


Place = tuple[Row, Task, float | None]
"""The row, task and learning rate of a cell; None for all learning rates."""
Places = Mapping[tuple[str, str], Place]
"""By the names of a table's row and column."""


def view(table: Table, places: Places, comparison: Comparison, runs: Runs, published: Mapping[str, str]) -> TableView:
    """A table with what can be done with it: the runs behind each cell, what filters and columns go by.

    Args:
        table: as it is written elsewhere too.
        places: what its cells stand for, from :func:`named` or :func:`crossed`.
        comparison: what the table was made of.
        runs: keeps what a cell leads to.
        published: label -> method of the rows that others published.
    """
    tasks = {_name(task): task.name for task in comparison.tasks}
    several = len(comparison.tasks) > 1
    labels = {**published, **{row.label: row.method for row in comparison.rows}}

    def cell(heading: str, name: str, shown: Cell) -> CellView:
        place = places.get((heading, name)) if shown.text != formatting.MISSING else None
        return CellView(shown, order(shown.text), runs.cell(*place) if place else None)

    def line(cells: tuple[Cell, ...]) -> RowView:
        heading, *rest = cells
        own = [places[heading.text, name] for name in table.header[1:] if (heading.text, name) in places]
        methods, of = {row.method for row, _, _ in own}, {task.name for _, task, _ in own}
        method = methods.pop() if len(methods) == 1 else labels.get(heading.text, "")
        made = tuple(cell(heading.text, name, one) for name, one in zip(table.header[1:], rest, strict=True))
        return RowView(heading, made, method, of.pop() if several and len(of) == 1 else "")

    loud = tuple(note for note in table.notes if note and note[0].style == "bold")
    quiet = tuple(note for note in table.notes if note not in loud)
    columns = tuple(ColumnView(name, tasks.get(name, "")) for name in table.header)
    return TableView(table.caption, columns, tuple(map(line, table.rows)), loud, quiet)


def named(table: Table, comparison: Comparison) -> Places:
    """The places of a table whose rows are named by a row of the comparison, and a task where they are of one alone.

    Columns are named by a task, by a learning rate, or by anything that a row's only task has.
    """
    tasks = {_name(task): task for task in comparison.tasks}
    rows: dict[str, tuple[Row, Task | None]] = {
        row.label: (row, comparison.tasks[0] if len(tasks) == 1 else None) for row in comparison.rows
    }
    rows |= {f"{row.label}, {name}": (row, task) for row in comparison.rows for name, task in tasks.items()}
    rates = {
        formatting.rate(trial.lr): trial.lr
        for row in comparison.rows
        for result in row.results.values()
        for trial in result.trials
    }
    found = {}
    for heading in (cells[0].text for cells in table.rows if cells[0].text in rows):
        row, only = rows[heading]
        for name in table.header[1:]:
            task = tasks.get(name, only)
            if task is not None:
                found[heading, name] = (row, task, rates.get(name))
    return found


def crossed(grid: Grid, task: Task) -> Places:
    """The places of a rank x frequency table."""
    found: dict[tuple[str, str], Place] = {
        (f"r={rank}", formatting.period(*period)): (row, task, None) for (rank, period), row in grid.cells.items()
    }
    return found | {(f"r={rank}", grid.columns[-1]): (row, task, None) for rank, row in grid.beside.items()}


def order(text: str) -> float | None:
    """The first number of a cell: ``71.2 ± 0.4`` is 71.2, ``0.15M + 770 head`` is 150,000; None without one."""
    found = NUMBER.match(text)
    return float(found[1]) * UNITS[found[2]] if found else None


def _name(task: Task) -> str:
    return formatting.TASK_NAMES.get(task.name, task.name)
