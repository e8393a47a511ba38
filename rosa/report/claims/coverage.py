"""What was cut: how many seeds each method has on each task, and what the runs took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rosa.records import Record
from rosa.report import formatting
from rosa.report.claims.section import Section, listed
from rosa.report.comparison import Comparison, Row, compare, frozen
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

PLANNED = 5
"""Seeds planned for each row and task."""
RATES_ONLY = "rates only"


def section(comparison: Comparison, found: Sequence[Record]) -> Section:
    """What the study has of what was planned.

    Args:
        comparison: the study's.
        found: all records, those of its learning-rate grids among them.
    """
    grid = f"{comparison.experiment}_tune"
    tuned = compare(found, grid) if any(run["identity"]["experiment"] == grid for run in found) else None
    took = [f"`{one.experiment}` {_took(one.runs)}" for one in (comparison, tuned) if one is not None]
    return Section(
        "What was cut",
        (
            "The study had two sittings of eight minutes on one GPU (an H200, then an H100), with many runs beside "
            f"each other, and later a CPU: {'; '.join(took)}. `experiments/{comparison.experiment}.yaml` and "
            f"`experiments/{grid}.yaml` have the commands. Except on CoLA, (IA)3 was trained with a weight decay that "
            "it no longer has.",
            seeds_table(comparison, tuned),
        ),
    )


def seeds_table(comparison: Comparison, tuned: Comparison | None) -> Table:
    """The number of seeds of each row on each task; rows that were only tuned are among them."""
    rows: dict[Any, tuple[str, dict[str, str]]] = {}
    for row in tuned.rows if tuned else ():
        rows[_method(row)] = (row.label, dict.fromkeys(row.results, RATES_ONLY))
    for row in comparison.rows:
        label, cells = rows.setdefault(_method(row), (row.label, {}))
        counts = {name: len(result.selected.scored) for name, result in row.results.items()}
        rows[_method(row)] = (label, cells | {name: str(count) for name, count in counts.items() if count})
    names = [formatting.TASK_NAMES.get(task.name, task.name) for task in comparison.tasks]
    body = [
        (Cell(label), *(Cell(cells.get(task.name, formatting.MISSING)) for task in comparison.tasks))
        for label, cells in rows.values()
    ]
    note = text(
        f"Of {PLANNED} seeds planned, so many have a score. {RATES_ONLY.capitalize()}: learning rates were tuned and "
        f"no further seed was run. {formatting.MISSING}: neither."
    )
    return Table("claims-seeds", "Seeds", ("Row", *names), tuple(body), (note,))


def _method(row: Row) -> Any:
    return frozen({key: value for key, value in row.settings.items() if key.startswith("method.")})


def _took(runs: Sequence[Record]) -> str:
    hours = sum(run["costs"].get("seconds_total", 0.0) for run in runs) / 3600
    devices = sorted({run["environment"].get("device") or "device not recorded" for run in runs})
    return f"has {len(runs)} runs of {hours:.1f} hours together ({listed(devices)})"
