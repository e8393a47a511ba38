"""The claim that rank trades memory for speed of convergence, and not for expressiveness."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.claims.methods import difference_cell, legend
from rosa.report.claims.one_task import claims_table
from rosa.report.claims.section import VERDICT, ClaimsTable, Section, protocol, study_of, tuned_on
from rosa.report.claims.verdicts import (
    LORA,
    NEVER,
    RANK,
    ROSA,
    UNCORRECTED,
    Claim,
    corrected,
    difference_on,
    early_epoch,
    rows_of,
    verdict_of,
)
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.histories import Point, points
from rosa.report.tables.costs import STATE, measured
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.table import Cell, Table, text

EXPERIMENT = "evidence_rank"
PLANNED = (1, 2, 8, 32)
"""The ranks of the experiment's file; those without records are not run."""
SECOND = ROSA | {"method.every": 2}
"""ROSA with a new subspace every second epoch."""
LOW, HIGH = PLANNED[0], PLANNED[-1]
SOONER = Claim(
    f"Rank speeds ROSA up: rank {HIGH} is ahead of rank {LOW} early on",
    ROSA | {RANK: HIGH},
    ROSA | {RANK: LOW},
    early=True,
)
OF_RANK = (
    Claim(
        f"Rank does not limit ROSA: rank {LOW} is as good as rank {HIGH}",
        ROSA | {RANK: LOW},
        ROSA | {RANK: HIGH},
        as_good=True,
    ),
    Claim(f"Rank limits LoRA: rank {HIGH} is better than rank {LOW}", LORA | {RANK: HIGH}, LORA | {RANK: LOW}),
    SOONER,
)
BY_RANK = {
    f"{words}, for most ranks": tuple(Claim(words, own | {RANK: r}, other | {RANK: r}) for r in PLANNED)
    for words, own, other in (
        ("ROSA is better than LoRA", ROSA, LORA),
        ("A new subspace each epoch is better than the first one kept", ROSA, NEVER),
        ("One every second epoch is better than the first one kept", SECOND, NEVER),
    )
}
"""Claim -> its comparison at each rank."""


def section(comparison: Comparison) -> Section:
    """The claims on each task, and the score of each rank after each epoch."""
    parts: list[str | Table] = []
    for task in comparison.tasks:
        on = f"on {formatting.task_name(task.name)}"
        parts += [
            claims_table(f"claims-rank-{task.name}", f"Rank, {on}", OF_RANK, comparison, task),
            by_rank_table(comparison, task, f"At each rank, {on}"),
            *_early_on(comparison, task),
            speed_table(comparison, task),
        ]
    return Section(
        "Rank",
        (
            "The paper: rank trades memory for the speed of convergence, and not for expressiveness. So a small rank "
            f"should be behind at first and not at the end. {protocol(comparison)}{tuned_on(comparison)}. A faster "
            "start may also be that of a higher rate. [Scores, rates and commands]"
            f"(../results/tables/{EXPERIMENT}.md).",
            *parts,
        ),
        study_of(comparison),
    )


def by_rank_table(comparison: Comparison, task: Task, caption: str) -> Table:
    """One line per claim: the difference at each rank, corrected over the whole table, and a verdict."""
    found = corrected([[difference_on(comparison, claim, task) for claim in line] for line in BY_RANK.values()])
    footnotes = Footnotes()
    rows = [
        (Cell(words), *(difference_cell(one, footnotes) for one in line), Cell(verdict_of(line, "ranks")))
        for words, line in zip(BY_RANK, found, strict=True)
    ]
    header = ("Claim", *(f"r={rank}" for rank in PLANNED), VERDICT)
    lines = (
        legend([one for line in found for one in line if one is not None]),
        text(f"Verdict: by most of the ranks, as above by most of the tasks. {UNCORRECTED}"),
        *map(text, footnotes.lines()),
    )
    return ClaimsTable(
        f"claims-by-rank-{task.name}", caption, header, tuple(rows), lines, found=tuple(map(tuple, found)), each="ranks"
    )


def _early_on(comparison: Comparison, task: Task) -> list[str]:
    """Which epoch the early claim is about, and how many rows were still getting better; nothing without its rows."""
    rows = rows_of(comparison, SOONER)
    early = early_epoch(*rows, task) if rows else None
    if rows is None or early is None:
        return []
    curves = [curve for row in comparison.rows if (curve := points(row, task, task.metric))]
    best = min if task.lower_is_better else max
    rising = sum(best(curve, key=lambda point: point.mean) is curve[-1] for curve in curves)
    first = min(set.intersection(*({point.epoch for point in points(row, task, task.metric)} for row in rows)))
    two = "; ".join(row.label for row in rows)
    why = (
        f" We had planned epoch {first:g}, but after it all runs of the two rows ({two}) had the same "
        "score, as if they gave one constant answer."
        if early > first
        else ""
    )
    return [
        f"*Early* is epoch {early:g}.{why} In {rising} of {len(curves)} rows the mean is best after the last epoch, "
        "so these had not converged, and what a rank could express in the end is not tested."
    ]


def speed_table(comparison: Comparison, task: Task) -> Table:
    """Each row's memory, and its score after each epoch."""
    curves = {row.label: points(row, task, task.metric) for row in comparison.rows}
    epochs = sorted({point.epoch for curve in curves.values() for point in curve})
    rows = [_speed_line(row, task, curves[row.label], epochs) for row in comparison.rows if curves[row.label]]
    header = ("Row", "Training state (MiB)", *(f"Epoch {epoch:g}" for epoch in epochs))
    lines = (
        text(
            f"{formatting.scaled_name(task.metric)} on the {task.splits[0]} split after each epoch, mean ± standard "
            "deviation over seeds. Training state: weights, gradients and optimizer state."
        ),
    )
    name = formatting.task_name(task.name)
    return Table(f"speed-{task.name}", f"How fast each rank converges, on {name}", header, tuple(rows), lines)


def _speed_line(row: Row, task: Task, curve: Sequence[Point], epochs: Sequence[float]) -> tuple[Cell, ...]:
    state = [value for (name, *_), value in measured(row, STATE).items() if name == task.name]
    shown = formatting.significant(statistics.fmean(state) / STATE.unit) if state else formatting.MISSING
    by_epoch = {point.epoch: _score(point, task) for point in curve}
    cells = (shown, *(by_epoch.get(epoch, formatting.MISSING) for epoch in epochs))
    return Cell(row.label), *map(Cell, cells)


def _score(point: Point, task: Task) -> str:
    found = summarise(point.values.values())
    return formatting.mean_and_deviation(found.mean, found.deviation, task.metric) if found else formatting.MISSING
