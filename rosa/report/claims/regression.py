"""The claim that ROSA is more expressive than LoRA, on regressions where full fine-tuning's optimum is known."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.records import Record
from rosa.report import formatting
from rosa.report.claims.section import VERDICT, ClaimsTable, Section
from rosa.report.claims.verdicts import (
    DIFFERENCE,
    FULL,
    LORA,
    Difference,
    Settings,
    corrected,
    mean_and_reach,
    row_of,
    verdict_of,
)
from rosa.report.comparison import Comparison, Row, summarise
from rosa.report.grouping import compare
from rosa.report.significance import LEVEL, compare_with
from rosa.report.tables.table import Cell, Table, text

METRIC = "mse"
ROSA: Settings = {"method.name": "rosa", "method.factorization": "svd_equal"}
DATA = {
    "regression_linear": "a teacher, a linear layer",
    "regression_mlp": "a teacher, a perceptron",
    "regression_diabetes": "diabetes, a perceptron",
}
"""Experiment -> its data and model. The first two have a teacher that differs from the student by a matrix of known
rank; the third is scikit-learn's set of 442 patients."""
TEST = "test"
HEADER = ("Claim", "Full", "LoRA", "ROSA", "Difference", "n", VERDICT)


def section(found: Sequence[Record]) -> list[Section]:
    """The claim on each regression that has records, at its largest rank; nothing without any."""
    known = {run["identity"]["experiment"] for run in found}
    comparisons = {name: compare(found, name) for name in DATA if name in known}
    if not comparisons:
        return []
    links = ", ".join(f"[{name}](../results/tables/{name}.md)" for name in comparisons)
    return [
        Section(
            "On regression",
            (
                "The paper proves for linear regression that ROSA comes to full fine-tuning's optimum and that LoRA of "
                "a lower rank cannot. [theory.md](theory.md) has the conditions, all ranks and the commands; its data "
                f"in full: {links}.",
                regression_table(comparisons),
            ),
        )
    ]


def regression_table(comparisons: dict[str, Comparison]) -> Table:
    """One line per regression: the errors of full fine-tuning, LoRA and ROSA, their difference, and a verdict."""
    shown = []
    for name, comparison in comparisons.items():
        ranks = sorted({row.settings["method.rank"] for row in comparison.rows if "method.rank" in row.settings})
        rank: Settings = {"method.rank": ranks[-1]} if ranks else {}
        rows = [row_of(comparison, wanted) for wanted in (FULL, LORA | rank, ROSA | rank)]
        shown.append((f"ROSA's error is lower than LoRA's: {DATA[name]}, {_named(rank)}", rows, comparison))
    tested = corrected([[_difference(rows, comparison)] for _, rows, comparison in shown])
    lines = []
    for (words, rows, comparison), (one,) in zip(shown, tested, strict=True):
        errors = [_error(row, comparison) for row in rows]
        cells = [formatting.MISSING] * 2 if one is None else [mean_and_reach(one), str(one.paired.n)]
        lines.append(tuple(map(Cell, (words, *errors, *cells, verdict_of([one])))))
    note = text(
        "Mean squared error on rows that no run trained on, at the epoch and the rate that are best on validation (on "
        f"which the teachers' are scored, too). Difference: {DIFFERENCE.replace(', in points', '')}. Verdict: by p < "
        f"{LEVEL:g} after Holm's correction over the table's tests."
    )
    found = tuple(map(tuple, tested))
    return ClaimsTable("claims-regression", "Regression", HEADER, tuple(lines), (note,), found=found)


def _named(rank: Settings) -> str:
    return ", ".join(f"{formatting.setting('r', value)}" for value in rank.values())


def _scores(row: Row | None, comparison: Comparison) -> dict[int, float]:
    """Seed -> error on test or, without a test split, on validation, which chose the epoch and the rate."""
    (task,) = comparison.tasks
    if row is None or task.name not in row.results:
        return {}
    split = TEST if TEST in task.splits else task.splits[0]
    return row.results[task.name].selected.scores(split, METRIC)


def _error(row: Row | None, comparison: Comparison) -> str:
    found = summarise(_scores(row, comparison).values())
    return formatting.MISSING if found is None else f"{found.mean:.4f}"


def _difference(rows: Sequence[Row | None], comparison: Comparison) -> Difference | None:
    _, lora, rosa = rows
    paired = compare_with("LoRA", _scores(rosa, comparison), _scores(lora, comparison))
    return Difference(comparison.experiment, METRIC, True, paired) if paired.n else None
