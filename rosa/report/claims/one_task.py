"""Several claims on one task: a line for each, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.claims.section import VERDICT
from rosa.report.claims.verdicts import (
    AS_GOOD,
    CONTRADICTED,
    DETECTABLE,
    DIFFERENCE,
    NOT_RUN,
    OPEN,
    SUPPORTED,
    Claim,
    detectable,
    difference_on,
    mean_and_reach,
)
from rosa.report.comparison import Comparison, Task
from rosa.report.significance import LEVEL, adjusted
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

HEADER = ("Claim", "Difference", "n", "p (Holm)", "Detectable", VERDICT)


def claims_table(name: str, caption: str, claims: Sequence[Claim], comparison: Comparison, task: Task) -> Table:
    """One line per claim: the difference on the task and its p-value, corrected over the lines, and a verdict."""
    found = [difference_on(comparison, claim, task) for claim in claims]
    known = [one for one in found if one is not None]
    corrected = iter(adjusted([one.paired for one in known]))
    rows = []
    for claim, one in zip(claims, found, strict=True):
        if one is None:
            rows.append((Cell(claim.words), *[Cell(formatting.MISSING)] * (len(HEADER) - 2), Cell(NOT_RUN)))
            continue
        p = next(corrected)
        verdict = OPEN if p is None or p >= LEVEL else SUPPORTED if one.ahead else CONTRADICTED
        cells = (mean_and_reach(one), str(one.paired.n), formatting.p_value(p), detectable(one), verdict)
        rows.append((Cell(claim.words), *map(Cell, cells)))
    tests = sum(one.paired.p is not None for one in known)
    lines = (
        text(
            f"Difference: {DIFFERENCE}. p (Holm): of the paired t-test, corrected for the {tests} tests of this table. "
            f"Detectable: {DETECTABLE}."
        ),
        text(
            f"Verdict: {OPEN} unless p (Holm) < {LEVEL:g}, which {formatting.MISSING} is not: fewer than two seeds, or "
            f"differences that do not vary. {AS_GOOD}"
        ),
    )
    return Table(name, caption, HEADER, tuple(rows), lines)
