"""What a resample does to the training: how far each subspace moves, and the loss around it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from rosa.records import Record
from rosa.report import formatting
from rosa.report.claims.verdicts import LORA, NEVER, ROSA, row_of
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.significance import LEVEL, Paired, compare_with
from rosa.report.tables.table import Cell, Table, text
from rosa.utils.names import MOVED

HEADER = ("Task", "Row", "Rate", "Moved", "Loss at a resample", "Less that without")

Jumps = dict[int, float]
"""Seed -> the mean of :func:`_jumps` over the steps of ROSA's resamples; without seeds that have none."""


def resamples(comparison: Comparison) -> list[str | Table]:
    """LoRA, and ROSA never and each epoch resampled, on each task: means over the seeds that all of them have.

    And a sentence on how often the loss falls less at a resample than without it; none where there is nothing to pair.
    """
    found = {name: row_of(comparison, wanted) for name, wanted in (("lora", LORA), ("never", NEVER), ("rosa", ROSA))}
    shown = {name: row for name, row in found.items() if row is not None}
    lines: list[tuple[Cell, ...]] = []
    pairs: list[float] = []
    for task in comparison.tasks:
        jumps = {name: _row_jumps(row, shown.get("rosa"), task) for name, row in shown.items()}
        known = [set(own) for own in jumps.values() if own]
        seeds = sorted(set.intersection(*known)) if known else []
        paired = compare_with("never", jumps.get("rosa", {}), jumps.get("never", {}))
        pairs += paired.differences
        for name, row in shown.items():
            if task.name in row.results:
                own = {seed: jumps[name][seed] for seed in seeds} if jumps[name] else {}
                lines.append(_line(row, task, own, paired if name == "rosa" else None))
    notes = (
        text(
            "Moved: the norm of the change that training made in the first subspace, and in the last, for which the "
            "learning rate has fallen; mean over layers and seeds."
        ),
        text(
            "Loss at a resample: the mean training loss of the first whole interval of logging after each resample, "
            "less that of the last one before it; in rows without resampling, at the same steps. Less that without: "
            "of the row never resampled with the same seed; the mean, ± half the width of its "
            f"{1 - LEVEL:.0%} interval (Student's t over seeds, not corrected). It is above 0 if resampling sets "
            "training back."
        ),
    )
    table = Table("claims-resamples", "Training around a resample", HEADER, tuple(lines), notes)
    more = sum(one > 0 for one in pairs)
    sentence = (
        f"Of {len(pairs)} pairs of runs with the same seed, the loss falls less at a resample than without in {more}."
    )
    return [table, *([sentence] if pairs else [])]


def _line(row: Row, task: Task, jumps: Jumps, paired: Paired | None) -> tuple[Cell, ...]:
    result = row.results[task.name].selected
    ends = [ends for run in result.scored.values() if (ends := _moved(run))]
    less = ""
    if paired is not None and paired.difference is not None:
        reach = "" if paired.interval is None else f" ± {(paired.interval[1] - paired.interval[0]) / 2:.3f}"
        less = f"{paired.difference:+.3f}{reach} (n={paired.n})"
    cells = (
        formatting.task_name(task.name),
        row.label,
        formatting.rate(result.lr),
        " to ".join(formatting.significant(statistics.fmean(of)) for of in zip(*ends, strict=True)),
        f"{statistics.fmean(jumps.values()):+.3f}" if jumps else "",
        less,
    )
    return tuple(Cell(cell or formatting.MISSING) for cell in cells)


def _moved(run: Record) -> tuple[float, float] | None:
    """How far the first and the last subspace of a run moved, mean over the layers; None if the record does not say."""
    if not run["resamples"]:
        return None
    last = run.get("diagnostics", {}).get("last_subspace") or run["resamples"][-1]
    first, latest = run["resamples"][0].get(MOVED), last.get(MOVED)
    known = [[norm for norm in some or () if norm is not None] for some in (first, latest)]
    return (statistics.fmean(known[0]), statistics.fmean(known[1])) if all(known) else None


def _row_jumps(row: Row, rosa: Row | None, task: Task) -> Jumps:
    """The jumps of a row's runs at the steps of the resamples of ROSA's run with the same seed."""
    if rosa is None or task.name not in rosa.results or task.name not in row.results:
        return {}
    steps = {
        seed: [event["step"] for event in run["resamples"]]
        for seed, run in rosa.results[task.name].selected.scored.items()
    }
    runs = row.results[task.name].selected.scored
    found = {seed: list(_jumps(run, steps.get(seed, []))) for seed, run in runs.items()}
    return {seed: statistics.fmean(own) for seed, own in found.items() if own}


def _jumps(run: Record, steps: Sequence[int]) -> Iterable[float]:
    """For each step, the loss of the first whole interval of logging after it, less that of the last one before it."""
    logged = [(entry["step"], loss) for entry in run["training"] if (loss := entry.get("loss")) is not None]
    starts = [0, *(end for end, _ in logged)]
    for step in steps:
        before = [loss for end, loss in logged if end <= step]
        after = [loss for start, (_, loss) in zip(starts, logged, strict=False) if start >= step]
        if before and after and math.isfinite(after[0] - before[-1]):
            yield after[0] - before[-1]
