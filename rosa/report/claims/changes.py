"""Whether a method did what it is meant to do: what training changed in the weights, by the records' diagnostics."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from rosa.records.schema import LayerChange
from rosa.report import formatting
from rosa.report.claims.resamples import resamples_table, set_back
from rosa.report.claims.section import Section
from rosa.report.comparison import Comparison, Row
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

Column = tuple[str, Callable[[LayerChange], float | None], Callable[[float], str]]
"""Heading, value of a layer, and format."""
COLUMNS: tuple[Column, ...] = (
    ("Rank", lambda layer: layer["rank"], formatting.significant),
    ("Effective rank", lambda layer: layer["effective_rank"], formatting.significant),
    ("Size", lambda layer: layer["relative_norm"], "{:.1%}".format),
    ("Directions drawn", lambda layer: layer["visited"], "{:.1%}".format),
)


def section(comparison: Comparison) -> Section:
    """The changes of the study's rows."""
    return Section(
        "Did resampling do what it is for?",
        (
            "A new subspace each epoch is to give the sum of the updates a higher rank than LoRA's. The table says "
            "whether it did; whether that helps is for the claims to say.",
            changes_table(comparison),
            "Why it may not help: a new subspace starts at a later, smaller learning rate and without the optimizer's "
            "state.",
            resamples_table(comparison),
            *set_back(comparison),
        ),
    )


def changes_table(comparison: Comparison) -> Table:
    """The change of the adapted weights of each row, averaged over layers, seeds and tasks."""
    rows = [(Cell(row.label), *map(Cell, cells)) for row in comparison.rows if (cells := _cells(row))]
    full = sorted({layer["full_rank"] for row in comparison.rows for layer in _layers(row)})
    note = text(
        "Of the difference of each adapted weight after training to the pretrained one, the mean over layers, seeds "
        f"and tasks: its rank (at most {', '.join(map(str, full))}); its effective rank, the exponential of the "
        "entropy of its normalized singular values; its Frobenius norm relative to the weight's; and the share of the "
        f"weight's singular directions drawn at least once. {formatting.MISSING}: the method draws none."
    )
    header = ("Row", *(name for name, *_ in COLUMNS))
    return Table("claims-changes", "The change of the adapted weights", header, tuple(rows), (note,))


def _cells(row: Row) -> list[str]:
    """The cells of a row; none where its runs have no diagnostics, as where a method adds nothing to weights."""
    layers = _layers(row)
    found = []
    for _, of, written in COLUMNS:
        known = [value for layer in layers if (value := of(layer)) is not None]
        found.append(written(statistics.fmean(known)) if known else formatting.MISSING)
    return found if layers else []


def _layers(row: Row) -> list[LayerChange]:
    """The diagnostics of every layer of every run that a row shows."""
    return [
        layer
        for result in row.results.values()
        for run in result.selected.scored.values()
        for layer in run["diagnostics"].get("layers", [])
    ]
