"""What a resample does to the training: how far each subspace moves, and the loss around it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from rosa.records import Record
from rosa.report import formatting
from rosa.report.claims.verdicts import LORA, NEVER, ROSA, row_of
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table
from rosa.utils.names import MOVED

HEADER = ("Task", "Row", "Rate", "Moved", "Loss at a resample")


def resamples_table(comparison: Comparison) -> Table:
    """LoRA, and ROSA never and each epoch resampled, on each task: means over seeds."""
    found = (row_of(comparison, wanted) for wanted in (LORA, NEVER, ROSA))
    shown = [row for row in found if row is not None]
    rows = [_line(row, task, comparison) for task in comparison.tasks for row in shown if task.name in row.results]
    notes = (
        text(
            "Moved: the norm of the change that training made in the first subspace, and in the last, for which the "
            "learning rate has fallen; mean over layers and seeds."
        ),
        text(
            "Loss at a resample: the mean training loss of the first whole interval of logging after each resample, "
            "less that of the last one before it; in rows without resampling, at the same steps. If resampling sets "
            "training back, this number is higher for a new subspace each epoch than for one that is never resampled."
        ),
    )
    return Table("claims-resamples", "Training around a resample", HEADER, tuple(rows), notes)


def set_back(comparison: Comparison) -> list[str]:
    """A sentence: on how many tasks the loss falls less at a resample than without it; nothing without such tasks."""
    rosa, never = row_of(comparison, ROSA), row_of(comparison, NEVER)
    if rosa is None or never is None:
        return []
    jumps = [(_jump(rosa, task, comparison), _jump(never, task, comparison)) for task in comparison.tasks]
    known = [(own, other) for own, other in jumps if own is not None and other is not None]
    less = sum(own > other for own, other in known)
    return [f"At a resample the loss falls less than without it on {less} of {len(known)} tasks."] if known else []


def _line(row: Row, task: Task, comparison: Comparison) -> tuple[Cell, ...]:
    result = row.results[task.name].selected
    ends = [_moved(run) for run in result.scored.values() if run["resamples"]]
    jump = _jump(row, task, comparison)
    cells = (
        formatting.TASK_NAMES.get(task.name, task.name),
        row.label,
        formatting.rate(result.lr),
        " to ".join(formatting.significant(statistics.fmean(of)) for of in zip(*ends, strict=True)),
        formatting.MISSING if jump is None else f"{jump:+.3f}",
    )
    return tuple(Cell(cell or formatting.MISSING) for cell in cells)


def _moved(run: Record) -> tuple[float, float]:
    """How far the first and the last subspace of a run moved, mean over the layers."""
    last = run["diagnostics"].get("last_subspace") or run["resamples"][-1]
    return statistics.fmean(run["resamples"][0][MOVED]), statistics.fmean(last[MOVED])


def _jump(row: Row, task: Task, comparison: Comparison) -> float | None:
    """The mean of :func:`_jumps` over the steps of ROSA's resamples and the seeds; None without any."""
    rosa = row_of(comparison, ROSA)
    if rosa is None or task.name not in rosa.results or task.name not in row.results:
        return None
    steps = {
        seed: [event["step"] for event in run["resamples"]]
        for seed, run in rosa.results[task.name].selected.scored.items()
    }
    runs = row.results[task.name].selected.scored.items()
    found = [jump for seed, run in runs for jump in _jumps(run, steps.get(seed, []))]
    return statistics.fmean(found) if found else None


def _jumps(run: Record, steps: Sequence[int]) -> Iterable[float]:
    """For each step, the loss of the first whole interval of logging after it, less that of the last one before it."""
    logged = [(entry["step"], loss) for entry in run["training"] if (loss := entry.get("loss")) is not None]
    starts = [0, *(end for end, _ in logged)]
    for step in steps:
        before = [loss for end, loss in logged if end <= step]
        after = [loss for start, (_, loss) in zip(starts, logged, strict=False) if start >= step]
        if before and after and math.isfinite(after[0] - before[-1]):
            yield after[0] - before[-1]
