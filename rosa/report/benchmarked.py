"""Claims about time and storage, compared with the table that ``scripts/benchmark.py costs`` has written."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.errors import ReportError
from rosa.report import formatting
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

FILE = "costs.csv"
"""In the folder of tables."""
SUPPORTED, CONTRADICTED, OPEN, NOT_RUN = "supported", "contradicted", "open", "not run"
"""The verdicts of a claim."""
ALLOWED = 1.02
"""Largest ratio that counts as no more."""
ROSA, LORA, FULL = "ROSA", "LoRA (loralib)", "Full"
RELATIVE = "step relative to LoRA ("


@dataclass(frozen=True)
class Line:
    """One line of the benchmark's table."""

    model: str
    method: str
    """Without its rank."""
    rank: str
    """Such as ``r=8``; empty for a method without one."""
    quantity: str
    value: float
    quartiles: tuple[float, float] | None


@dataclass(frozen=True)
class Ratio:
    """A cost of ROSA relative to another's, on one model."""

    model: str
    rank: str
    value: float
    quartiles: tuple[float, float] | None = None


def read(path: Path) -> list[Line]:
    """The measurements of a CSV file of the benchmark, without its lines about the machine; none without the file.

    Raises:
        ReportError: a value is not a number, or a column is missing; names the line.
    """
    found: list[Line] = []
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", newline="") as file:
        for number, fields in enumerate(csv.DictReader(file), start=2):
            try:
                model, colon, method = fields["case"].partition(": ")
                if colon:
                    name, _, rank = method.partition(" r=")
                    low, high = fields["lower_quartile"], fields["upper_quartile"]
                    quartiles = (float(low), float(high)) if low and high else None
                    value = float(fields["value"])
                    found.append(Line(model, name, rank and f"r={rank}", fields["quantity"], value, quartiles))
            except (KeyError, TypeError, ValueError) as error:
                raise ReportError(
                    f"{path}, line {number}: not a line of the benchmark ({type(error).__name__}: {error}); "
                    "`python scripts/benchmark.py costs` writes the file"
                ) from error
    return found


def costs_claims(lines: Sequence[Line]) -> Table:
    """One line per claim: ROSA's ratio on each model, and a verdict."""
    claims: tuple[tuple[str, Callable[[Sequence[Line]], list[Ratio]]], ...] = (
        ("ROSA's training step takes no longer than that of the faster LoRA", _steps),
        ("ROSA's training step takes no longer than full fine-tuning's", _to_full),
        ("Once merged, a model is as fast as before any method (no latency)", _merged),
        ("What ROSA needs for resuming takes no more bytes than LoRA's", _checkpoints),
    )
    rows = []
    for words, ratios in claims:
        found = ratios(lines)
        rows.append((Cell(words), Cell("; ".join(map(_written, found)) or formatting.MISSING), Cell(verdict_of(found))))
    note = text(
        "Found: ROSA's cost relative to the other's; where quartiles are given, the median of ratios of steps on the "
        f"same batch. Verdict: {SUPPORTED} where every ratio is at most {ALLOWED:g}, {CONTRADICTED} where none is, "
        f"{OPEN} otherwise. The batches, the machine and all methods: results/tables/costs.md."
    )
    return Table(
        "claims-costs", "The claims about time and storage", ("Claim", "Found", "Verdict"), tuple(rows), (note,)
    )


def verdict_of(found: Sequence[Ratio]) -> str:
    """Whether ROSA costs no more than the other on every model."""
    if not found:
        return NOT_RUN
    within = [one.value <= ALLOWED for one in found]
    return SUPPORTED if all(within) else OPEN if any(within) else CONTRADICTED


def _steps(lines: Sequence[Line]) -> list[Ratio]:
    return _measured_ratios(lines, RELATIVE)


def _merged(lines: Sequence[Line]) -> list[Ratio]:
    return _measured_ratios(lines, "latency once merged")


def _measured_ratios(lines: Sequence[Line], quantity: str) -> list[Ratio]:
    """The ratios of ROSA that the benchmark itself measured, step by step."""
    return [
        Ratio(one.model, one.rank, one.value, one.quartiles)
        for one in lines
        if one.method == ROSA and one.quantity.startswith(quantity)
    ]


def _to_full(lines: Sequence[Line]) -> list[Ratio]:
    full = {one.model: one.value for one in _of(lines, FULL, "step")}
    own = _of(lines, ROSA, "step")
    return [Ratio(one.model, one.rank, one.value / full[one.model]) for one in own if one.model in full]


def _checkpoints(lines: Sequence[Line]) -> list[Ratio]:
    lora = {(one.model, one.rank): one.value for one in _of(lines, LORA, "checkpoint")}
    own = [one for one in _of(lines, ROSA, "checkpoint") if (one.model, one.rank) in lora]
    return [Ratio(one.model, one.rank, one.value / lora[one.model, one.rank]) for one in own]


def _of(lines: Sequence[Line], method: str, quantity: str) -> list[Line]:
    return [one for one in lines if (one.method, one.quantity) == (method, quantity)]


def _written(one: Ratio) -> str:
    reach = ""
    if one.quartiles is not None:
        reach = f" ({'–'.join(formatting.significant(end) for end in one.quartiles)})"
    return f"{one.model} {one.rank} {formatting.significant(one.value)}{reach}"
