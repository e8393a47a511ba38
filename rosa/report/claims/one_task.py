"""Several claims on one task: a line for each, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.claims.section import VERDICT, ClaimsTable
from rosa.report.claims.verdicts import (
    DIFFERENCE,
    OPEN,
    UNCORRECTED,
    Claim,
    corrected,
    detectable,
    difference_on,
    mean_and_reach,
    on_detectable,
    on_margins,
    verdict_of,
)
from rosa.report.comparison import Comparison, Task
from rosa.report.significance import LEVEL
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.table import Cell, Table, text

HEADER = ("Claim", "Difference", "n", "p (Holm)", "Detectable", VERDICT)


def claims_table(name: str, caption: str, claims: Sequence[Claim], comparison: Comparison, task: Task) -> Table:
    """One line per claim: the difference on the task and its p-value, corrected over the lines, and a verdict."""
    (found,) = corrected([[difference_on(comparison, claim, task) for claim in claims]])
    footnotes, rows = Footnotes(), []
    for claim, one in zip(claims, found, strict=True):
        cells = [Cell(formatting.MISSING)] * (len(HEADER) - 2)
        if one is not None:
            difference = Cell(mean_and_reach(one), marks=tuple(map(footnotes.mark, one.apart)))
            rest = (str(one.paired.n), formatting.p_value(one.p), detectable(one))
            cells = [difference, *map(Cell, rest)]
        rows.append((Cell(claim.words), *cells, Cell(verdict_of([one]))))
    known = [one for one in found if one is not None]
    tests = max((one.tests or 0 for one in known), default=0)
    lines = (
        text(
            f"Difference: {DIFFERENCE}. p (Holm): of the paired t-test, corrected over the table's tests ({tests}). "
            f"Detectable: {on_detectable(known)}."
        ),
        text(
            f"{OPEN.capitalize()}: p (Holm) is {LEVEL:g} or more, or ({formatting.MISSING}) cannot be computed. "
            f"{UNCORRECTED}"
        ),
        *on_margins(known),
        *map(text, footnotes.lines()),
    )
    return ClaimsTable(name, caption, HEADER, tuple(rows), lines, found=tuple((one,) for one in found))
