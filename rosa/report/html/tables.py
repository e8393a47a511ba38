"""Tables as the page shows them: each cell with its runs, sort value and filter keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.html.runs import Runs
from rosa.report.tables.rank_frequency import RankMap
from rosa.report.tables.results import AVERAGE
from rosa.report.tables.table import Cell, Line, Table

UNITS = {"": 1.0, "K": 1e3, "M": 1e6}
NUMBER = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?)([KM]?)")


@dataclass(frozen=True)
class CellView:
    """A cell on the page: its text and marks, its sort value, and the runs behind it."""

    shown: Cell
    order: float | None
    """Sort value; None if the cell shows no number."""
    runs: int | None
    """Index of the cell in :class:`~rosa.report.html.runs.Runs`; None without runs."""
    mean: float | None = None
    """Mean score as shown but not rounded, from which the page makes averages over the tasks that a filter leaves."""


@dataclass(frozen=True)
class RowView:
    """One row; the first cell is its heading."""

    heading: Cell
    cells: tuple[CellView, ...]
    method: str
    """Method, for the filter; empty if the row has none."""
    task: str
    """Task, for the filter; empty unless the row belongs to one task."""


@dataclass(frozen=True)
class ColumnView:
    """The heading of a column, with the task by which it can be filtered."""

    name: str
    task: str
    """Task, for the filter; empty if the column belongs to all tasks."""

    @property
    def averaged(self) -> bool:
        """Whether it has the average over the tasks' columns."""
        return self.name == AVERAGE


@dataclass(frozen=True)
class TableView:
    """A table with its notes; ``warnings`` are shown above it, ``notes`` below."""

    caption: str
    columns: tuple[ColumnView, ...]
    rows: tuple[RowView, ...]
    warnings: tuple[Line, ...]
    notes: tuple[Line, ...]
    legend: tuple[Line, ...]


Place = tuple[Row, Task, float | None]
"""Row, task and learning rate of a cell; None for all learning rates."""
Places = Mapping[tuple[str, str], Place]
"""(row heading, column heading) -> place."""


def view(table: Table, places: Places, comparison: Comparison, runs: Runs, published: Mapping[str, str]) -> TableView:
    """Convert a table for the page: add the runs behind each cell, sort values and filter keys.

    Args:
        table: the table, as in the other formats.
        places: places of its cells, from :func:`named` or :func:`crossed`.
        comparison: the comparison that the table shows.
        runs: collects the runs of each cell.
        published: label -> method of the published rows.
    """
    tasks = {formatting.task_name(task.name): task.name for task in comparison.tasks}
    several = len(comparison.tasks) > 1
    labels = {**published, **{row.label: row.method for row in comparison.rows}}

    def cell(heading: str, name: str, shown: Cell) -> CellView:
        place = places.get((heading, name)) if shown.text != formatting.MISSING else None
        return CellView(shown, order(shown.text), runs.cell(*place) if place else None, _mean(place) if place else None)

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
    return TableView(table.caption, columns, tuple(map(line, table.rows)), loud, quiet, table.legend)


def _mean(place: Place) -> float | None:
    row, task, _ = place
    found = summarise(row.scores(task).values())
    return formatting.scale(task.metric) * found.mean if found else None


def named(table: Table, comparison: Comparison) -> Places:
    """Places of a table whose row headings are a row's label, or a label and a task.

    Column headings are a task, a learning rate, or a quantity of the row's only task.
    """
    tasks = {formatting.task_name(task.name): task for task in comparison.tasks}
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


def crossed(rank_map: RankMap, task: Task) -> Places:
    """Places of a rank x frequency table."""
    found: dict[tuple[str, str], Place] = {
        (f"r={rank}", formatting.period(*period)): (row, task, None) for (rank, period), row in rank_map.cells.items()
    }
    return found | {(f"r={rank}", rank_map.columns[-1]): (row, task, None) for rank, row in rank_map.beside.items()}


def order(text: str) -> float | None:
    """The first number of a cell: ``71.2 ± 0.4`` is 71.2, ``12,346`` 12346, ``0.15M + 770 head`` 150000; else None."""
    found = NUMBER.match(text)
    return float(found[1].replace(",", "")) * UNITS[found[2]] if found else None
