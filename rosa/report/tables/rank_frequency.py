"""Rank x resampling frequency tables of the rows that differ by these two settings alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rosa.config import registry
from rosa.report import baselines, formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.grouping import frozen
from rosa.report.tables import notes
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.highlights import Column, Standings, legend, standings
from rosa.report.tables.results import not_above, standing_cell, task_columns, trial_text
from rosa.report.tables.table import Cell, Table, text

RANK = "Rank"
"""The heading of a table's first column."""
AXES = ("method.rank", "method.every", "method.unit")


@dataclass(frozen=True)
class RankMap:
    """A map from rank and period to rows of one model and method that agree on everything else."""

    label: str
    """The method, and what distinguishes this map from the experiment's others."""
    ranks: tuple[float, ...]
    """Ascending."""
    periods: tuple[tuple[int, str], ...]
    """Number and unit, the most frequent resampling first; never (0) last."""
    cells: Mapping[tuple[float, tuple[int, str]], Row]
    """(rank, period) -> row; combinations without runs are absent."""
    beside: Mapping[float, Row]
    """Rank -> the LoRA row of that rank, if there is one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Column headings: the periods, and LoRA if there is a LoRA row."""
        lora = [registry.label("lora")] if self.beside else []
        return (*(formatting.period(*period) for period in self.periods), *lora)


def rank_maps(rows: Sequence[Row]) -> list[RankMap]:
    """All maps among the rows: at least two ranks that share at least two periods."""
    members: dict[object, list[Row]] = {}
    for row in rows:
        if all(key in row.settings for key in AXES):
            rest = {key: value for key, value in row.settings.items() if key not in AXES}
            members.setdefault((row.model, frozen(rest)), []).append(row)
    return [made for own in members.values() if (made := _rank_map(own, rows)) is not None]


def _rank_map(own: Sequence[Row], rows: Sequence[Row]) -> RankMap | None:
    cells = {(row.settings["method.rank"], _period(row)): row for row in own}
    ranks, periods = {rank for rank, _ in cells}, {period for _, period in cells}
    shared = [{period for rank, period in cells if rank == one} for one in ranks]
    if not any(len(one & other) > 1 for one, other in itertools.combinations(shared, 2)):
        return None
    ordered = sorted(periods, key=lambda period: (period[0] == 0, period[1], period[0]))
    beside = {}
    for rank in ranks:
        lora = [r for r in rows if (r.model, r.method, r.settings.get("method.rank")) == (own[0].model, "lora", rank)]
        if len(lora) == 1:
            beside[rank] = lora[0]
    first = own[0]
    parts = first.label.split(", ")
    # A label starts with method, rank and period; the rest distinguishes maps.
    label = ", ".join([registry.label(first.method), *parts[2:]])
    return RankMap(label, tuple(sorted(ranks)), tuple(ordered), cells, beside)


def _period(row: Row) -> tuple[int, str]:
    every = row.settings["method.every"]
    return (every, row.settings["method.unit"]) if every else (0, "")


def rank_frequency_tables(comparison: Comparison) -> list[Table]:
    """One table per map and task: rows are ranks, columns periods, the last column is LoRA of the same rank."""
    columns = task_columns(comparison)
    return [
        _table(comparison, rank_map, task, columns[task.name].column)
        for rank_map in rank_maps(comparison.rows)
        for task in comparison.tasks
    ]


def _table(comparison: Comparison, rank_map: RankMap, task: Task, column: Column) -> Table:
    # LoRA is included when the best cell is determined.
    shown = [*rank_map.cells.values(), *rank_map.beside.values()]
    standing = standings(column, shown)
    rows, footnotes = [], Footnotes()
    for rank in rank_map.ranks:
        line = [rank_map.cells.get((rank, period)) for period in rank_map.periods]
        line += [rank_map.beside.get(rank)] if rank_map.beside else []
        rows.append((Cell(f"r={rank}"), *(_cell(comparison, row, task, standing, footnotes) for row in line)))
    name = formatting.task_name(task.name)
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    caption = (
        f"{comparison.experiment}: {model} on {name}, {rank_map.label} by rank and time between resamples, "
        f"{formatting.scaled_name(task.metric)} at the {comparison.epoch}"
    )
    explained = legend([standing], shown, "the table among cells")
    place = (task.splits[0], task.metric)
    found = baselines.lines(comparison, task).values()
    below = [
        f"{line.label} {formatting.score(mean, place[1])}" for line in found if (mean := line.mean(*place)) is not None
    ]
    lines = (
        *notes.notes(comparison),
        *notes.on_baselines(comparison),
        *([text(f"Here: {', '.join(below)}.")] if below else []),
    )
    keys = (*map(text, footnotes.lines()), text(f"{explained} {formatting.MISSING}: no run."))
    return Table(
        f"{comparison.experiment}-rank-frequency", caption, (RANK, *rank_map.columns), tuple(rows), lines, keys
    )


def _cell(comparison: Comparison, row: Row | None, task: Task, standing: Standings, footnotes: Footnotes) -> Cell:
    if row is None or task.name not in row.results:
        return Cell(formatting.MISSING)
    trial = row.results[task.name].selected
    letters = not_above(comparison, trial, task, footnotes)
    return standing_cell(trial_text(trial, task), standing[row.label], letters)
