"""One sentence for each question of the paper's reviewers, made from the tables that answer it."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.benchmarked import FULL, LORA, ROSA, Line, ratios, values
from rosa.report.claims import verdicts
from rosa.report.claims.costs import to_faster_lora, to_full
from rosa.report.comparison import Comparison
from rosa.report.tables.table import Table


def convergence(comparison: Comparison, table: Table) -> str:
    """On how many tasks ROSA, LoRA and full fine-tuning come to the target of the convergence table."""
    counts = []
    for name, wanted in (("ROSA", verdicts.ROSA), ("LoRA", verdicts.LORA), ("full fine-tuning", verdicts.FULL)):
        known = [cell for cell in _cells(comparison, table, wanted) if cell != formatting.MISSING]
        if known:
            counts.append(f"{name} on {sum(cell[0].isdigit() for cell in known)} of {len(known)} tasks")
    if not counts:
        return ""
    return f"Counted here is who comes near full fine-tuning's last score at all: {', '.join(counts)}."


def fluctuation(comparison: Comparison, table: Table) -> str:
    """On how many tasks ROSA's deviation is smaller than LoRA's, and than full fine-tuning's."""
    own = _cells(comparison, table, verdicts.ROSA)
    counts = []
    for name, wanted in (("LoRA's", verdicts.LORA), ("full fine-tuning's", verdicts.FULL)):
        pairs = [
            (float(mine.split()[0]), float(other.split()[0]))
            for mine, other in zip(own, _cells(comparison, table, wanted), strict=False)
            if formatting.MISSING not in (mine, other)
        ]
        if pairs:
            counts.append(f"smaller than {name} on {sum(a < b for a, b in pairs)} of {len(pairs)} tasks")
    return f"ROSA's deviation is {' and '.join(counts)}." if counts else ""


def storage(lines: Sequence[Line]) -> str:
    """What a resume needs relative to full fine-tuning's and LoRA's, and what a step takes."""
    own = values(lines, ROSA, "checkpoint")
    to_full_size, to_lora_size = (list(ratios(own, values(lines, one, "checkpoint")).values()) for one in (FULL, LORA))
    full, lora = (list(of(lines).values()) for of in (to_full, to_faster_lora))
    if not (to_full_size and to_lora_size and full and lora):
        return ""
    return (
        f"To resume, ROSA needs {_range(to_full_size)} times what full fine-tuning needs, and {_range(to_lora_size)} "
        f"times what LoRA needs. Its step takes {_range(full)} of full fine-tuning's time, and {_range(lora)} of the "
        "faster LoRA's: time is gained over the former only."
    )


def _cells(comparison: Comparison, table: Table, wanted: verdicts.Settings) -> list[str]:
    """The cells of a row of the table, without its label; none where the row is not there."""
    row = verdicts.row_of(comparison, wanted)
    found = (line for line in table.rows if row is not None and line[0].text == row.label)
    return [cell.text for cell in next(found, ())[1:]]


def _range(found: Sequence[float]) -> str:
    low, high = formatting.significant(min(found)), formatting.significant(max(found))
    return low if low == high else f"{low} to {high}"
