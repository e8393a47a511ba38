"""The table of differences from LoRA: confidence interval, p-value after Holm's correction, and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rosa.report import formatting
from rosa.report.apart import apart
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.significance import LEVEL, POWER, Paired, adjusted, by_size, compare_with, lora_of
from rosa.report.tables import notes
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.table import Cell, Table, text

BETTER, WORSE, OPEN = "better", "worse", "open"
"""Verdicts: the corrected p-value is below the level, or it is not."""


@dataclass(frozen=True)
class Difference:
    """The difference of one row's scores from LoRA's on one task."""

    row: Row
    task: Task
    paired: Paired
    p_holm: float | None
    """The p-value, adjusted for the number of tests in the comparison; None where there is no test."""
    detectable: float | None
    """The detectable difference at the level of the smallest of that many p-values."""
    apart: Sequence[str]
    """What else differs between the paired runs, see :mod:`rosa.report.apart`."""

    @property
    def verdict(self) -> str:
        """One of ``better``, ``worse`` and ``open``; also open if there are too few seeds for a test."""
        if self.p_holm is None or self.p_holm >= LEVEL or self.paired.difference is None:
            return OPEN
        return BETTER if (self.paired.difference < 0) == self.task.lower_is_better else WORSE


def differences(comparison: Comparison) -> list[Difference]:
    """Every row beside the LoRA row that it is compared with, on each task where both have seeds in common."""
    found: list[tuple[Row, Task, Paired]] = []
    others: list[list[str]] = []
    for row in comparison.rows:
        lora = lora_of(row, comparison.rows)
        for task in comparison.tasks if lora is not None else ():
            if lora is None:
                continue
            paired = compare_with(lora.label, row.scores(task), lora.scores(task))
            if paired.n:
                found.append((row, task, paired))
                others.append(apart(row, lora, task))
    corrected = adjusted([paired for *_, paired in found])
    tests = sum(p is not None for p in corrected)
    return [
        Difference(*one, p, one[-1].detectable(tests), more)
        for one, p, more in zip(found, corrected, others, strict=True)
    ]


def differences_table(comparison: Comparison) -> Table | None:
    """One line per row and task; None if no row has an interval, which needs two seeds in common with LoRA."""
    found = differences(comparison)
    if not any(one.paired.interval for one in found):
        return None
    header = (
        "Method",
        "Task",
        "Difference",
        f"{1 - LEVEL:.0%} interval",
        "n",
        "p",
        "p (Holm)",
        "Detectable",
        "Verdict",
    )
    footnotes = Footnotes()
    rows = tuple(_line(one, footnotes) for one in found)
    tests = [one for one in found if one.p_holm is not None]
    lines = (
        text(
            "Difference: the mean over seeds of the row's score less that of LoRA (of the same rank or the nearest "
            "size, where there are several) with the same seed. Interval and p: Student's t on these differences. p "
            f"(Holm): corrected for the {len(tests)} tests of this table.{by_size(comparison.rows)}"
        ),
        text(
            f"Detectable: the smallest true difference that n such pairs would find with a chance of {POWER:.0%} at p "
            f"< {LEVEL:g}/{len(tests)}, what the correction asks of the smallest p. Verdict: {OPEN} unless p (Holm) < "
            f"{LEVEL:g}; intervals are not corrected, so it can be {OPEN} although the interval leaves out 0. "
            f"{formatting.MISSING}: fewer than two seeds, or differences that do not vary."
        ),
        *map(text, footnotes.lines()),
        *notes.notes(comparison),
    )
    models = ", ".join(sorted({row.model for row in comparison.rows}))
    caption = f"{comparison.experiment}: {models}, differences from LoRA at the {comparison.epoch}"
    return Table(f"{comparison.experiment}-differences", caption, header, rows, lines)


def _line(one: Difference, footnotes: Footnotes) -> tuple[Cell, ...]:
    paired, metric = one.paired, one.task.metric
    interval = formatting.MISSING
    if paired.interval is not None:
        interval = " to ".join(formatting.signed_score(end, metric) for end in paired.interval)
    return (
        Cell(one.row.label),
        Cell(formatting.task_name(one.task.name)),
        Cell(
            formatting.MISSING if paired.difference is None else formatting.signed_score(paired.difference, metric),
            marks=tuple(map(footnotes.mark, one.apart)),
        ),
        Cell(interval),
        Cell(str(paired.n)),
        Cell(formatting.p_value(paired.p)),
        Cell(formatting.p_value(one.p_holm), bold=one.p_holm is not None and one.p_holm < LEVEL),
        Cell(formatting.MISSING if one.detectable is None else formatting.score(one.detectable, metric)),
        Cell(one.verdict),
    )
