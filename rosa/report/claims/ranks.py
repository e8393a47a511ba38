"""The claim that rank trades memory for speed of convergence, and not for expressiveness."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.claims.one_task import claims_table
from rosa.report.claims.section import Section, protocol
from rosa.report.claims.verdicts import LORA, ROSA, Claim
from rosa.report.comparison import Comparison, Row, Task, summarise
from rosa.report.histories import Point, points
from rosa.report.tables.costs import STATE, measured
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

EXPERIMENT = "evidence_rank"
RANK = "method.rank"


def claims(comparison: Comparison) -> list[Claim]:
    """The claims about the smallest and the largest rank of the experiment, and about each rank of ROSA and LoRA."""
    ranks = sorted({row.settings[RANK] for row in comparison.rows if RANK in row.settings})
    found = []
    if len(ranks) > 1:
        low, high = ranks[0], ranks[-1]
        small, large = ROSA | {RANK: low}, ROSA | {RANK: high}
        found = [
            Claim(f"Rank does not limit ROSA: rank {low} is as good as rank {high}", small, large, as_good=True),
            Claim(f"Rank limits LoRA: rank {high} is better than rank {low}", LORA | {RANK: high}, LORA | {RANK: low}),
            Claim(f"Rank speeds ROSA up: rank {high} is ahead of rank {low} early on", large, small, early=True),
        ]
    return found + [Claim(f"ROSA is better than LoRA at rank {r}", ROSA | {RANK: r}, LORA | {RANK: r}) for r in ranks]


def section(comparison: Comparison) -> Section:
    """The claims on each task, and the score of each rank after each epoch."""
    tables = []
    for task in comparison.tasks:
        name = formatting.TASK_NAMES.get(task.name, task.name)
        caption = f"Rank, on {name}"
        tables.append(claims_table(f"claims-rank-{task.name}", caption, claims(comparison), comparison, task))
        tables.append(speed_table(comparison, task))
    return Section(
        "Rank",
        (
            "The paper: rank trades memory for the speed of convergence, and not for expressiveness. So a small rank "
            f"should be behind at first and not at the end. {protocol(comparison)}; the learning rate of each row is "
            "tuned on seed 0, so a faster start may also be that of a higher rate. Early on: after the first epoch "
            "that does not leave all runs with the same score; the first one was planned, and told nothing. [Scores, "
            "rates and commands]"
            f"(../results/tables/{EXPERIMENT}.md).",
            *tables,
        ),
    )


def speed_table(comparison: Comparison, task: Task) -> Table:
    """Each row's memory, and its score after each epoch."""
    curves = {row.label: points(row, task, task.metric) for row in comparison.rows}
    epochs = sorted({point.epoch for curve in curves.values() for point in curve})
    rows = [_speed_line(row, task, curves[row.label], epochs) for row in comparison.rows if curves[row.label]]
    header = ("Row", "Training state (MiB)", *(f"Epoch {epoch:g}" for epoch in epochs), "First / last")
    lines = (
        text(
            f"{formatting.scaled_name(task.metric)} on the {task.splits[0]} split after each epoch, mean ± standard "
            "deviation over seeds. First / last: the mean after the first epoch as a share of that after the last. "
            "Training state: weights, gradients and optimizer state."
        ),
    )
    name = formatting.TASK_NAMES.get(task.name, task.name)
    return Table(f"speed-{task.name}", f"How fast each rank converges, on {name}", header, tuple(rows), lines)


def _speed_line(row: Row, task: Task, curve: Sequence[Point], epochs: Sequence[float]) -> tuple[Cell, ...]:
    state = [value for (name, *_), value in measured(row, STATE).items() if name == task.name]
    shown = formatting.significant(statistics.fmean(state) / STATE.unit) if state else formatting.MISSING
    by_epoch = {point.epoch: _score(point, task) for point in curve}
    share = f"{curve[0].mean / curve[-1].mean:.0%}" if curve[0].mean >= 0 < curve[-1].mean else formatting.MISSING
    cells = (shown, *(by_epoch.get(epoch, formatting.MISSING) for epoch in epochs), share)
    return Cell(row.label), *map(Cell, cells)


def _score(point: Point, task: Task) -> str:
    found = summarise(point.values.values())
    return formatting.mean_and_deviation(found.mean, found.deviation, task.metric) if found else formatting.MISSING
