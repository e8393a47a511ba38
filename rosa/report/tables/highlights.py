"""Highlights of a column: the best, those within one standard deviation of it, and differences from LoRA."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rosa.report import formatting
from rosa.report.comparison import Row, Summary, summarise
from rosa.report.significance import LEVEL, Paired, by_size, compare_with, lora_of

STAR = "*"
"""Mark of a significant difference from LoRA."""


@dataclass(frozen=True)
class Column:
    """The scores of one column, by row."""

    name: str
    metric: str
    lower_is_better: bool
    scores: Mapping[str, Mapping[int, float]]
    """Row label -> seed -> score."""
    complete: Collection[str]
    """Labels of the rows that have every seed; only these can be best or close."""
    averages: Mapping[str, Summary] = field(default_factory=dict)
    """Row label -> mean and spread, where the mean is not that of ``scores``."""

    def shown(self, label: str) -> Summary | None:
        """Mean and spread of a row as its cell has them; None without a score."""
        return self.averages.get(label) or summarise(self.scores.get(label, {}).values())


@dataclass(frozen=True)
class Standing:
    """Highlights of one cell."""

    best: bool = False
    close: bool = False
    """Not the best, but within the best row's standard deviation of it."""
    paired: Paired | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """The star of a significant difference from LoRA."""
        return (STAR,) if self.paired is not None and self.paired.marked else ()


@dataclass
class Standings:
    """The standings of all rows in one column."""

    column: Column
    by_row: dict[str, Standing] = field(default_factory=dict)

    def __getitem__(self, label: str) -> Standing:
        return self.by_row.get(label, Standing())


def standings(column: Column, rows: Sequence[Row]) -> Standings:
    """Find the highlights of a column, for each model separately.

    All complete rows whose number as written equals the best are best; a single row is not marked.
    """
    found = Standings(column)
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        best, close = _best_and_close(column, [row.label for row in own])
        for row in own:
            lora = lora_of(row, own)
            paired = None
            if lora is not None and row.label in column.scores and lora.label in column.scores:
                paired = compare_with(lora.label, column.scores[row.label], column.scores[lora.label])
            found.by_row[row.label] = Standing(row.label in best, row.label in close, paired)
    return found


def _best_and_close(column: Column, labels: Sequence[str]) -> tuple[set[str], set[str]]:
    summaries = {label: column.shown(label) for label in labels}
    known = {label: found for label, found in summaries.items() if found and label in column.complete}
    if len(known) < 2:
        return set(), set()
    sign = -1 if column.lower_is_better else 1
    first = max(known, key=lambda label: sign * known[label].mean)
    shown = formatting.score(known[first].mean, column.metric)
    best = {label for label, found in known.items() if formatting.score(found.mean, column.metric) == shown}
    reach = known[first].deviation
    if reach is None:
        return best, set()
    near = {label for label, found in known.items() if abs(found.mean - known[first].mean) <= reach}
    return best, near - best


def legend(columns: Sequence[Standings], rows: Sequence[Row], where: str = "a column among rows") -> str:
    """The meaning of bold, underlined and starred cells of the rows, and the number of tests.

    Args:
        columns: the standings.
        rows: all rows of the table, among which are LoRA's.
        where: the cells that are compared.
    """
    found = [standing for column in columns for standing in column.by_row.values()]
    parts = [f"Bold: best of {where} with all seeds."]
    if any(standing.close for standing in found):
        parts.append("Underlined: within one standard deviation (the best row's) of the best.")
    tests = [standing.paired for standing in found if standing.paired and standing.paired.p is not None]
    if tests:
        counts = sorted({test.n for test in tests})
        written = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        parts.append(
            f"{STAR}: differs from LoRA (of the same rank or the nearest size, where there are several), two-sided "
            f"paired t-test over the seeds that both have, p < {LEVEL:g}; {len(tests)} tests of {written} seeds each, "
            "not corrected for their number. With so few seeds only large differences can pass, and the absence of a "
            f"star shows nothing. Every p-value is in the CSV file.{by_size(rows)}"
        )
    return " ".join(parts)
