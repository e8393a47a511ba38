"""The measurements that ``scripts/benchmark.py costs`` has written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.errors import ReportError

FILE = "costs.csv"
"""In the folder of tables."""
ROSA, LORA, FULL = "ROSA", "LoRA (loralib)", "Full"

Case = tuple[str, str]
"""Model, and rank such as ``r=8``."""


@dataclass(frozen=True)
class Line:
    """One line of the benchmark's table."""

    model: str
    method: str
    """Without its rank."""
    rank: str
    """Such as ``r=8``; empty for a method without one."""
    quantity: str
    """Without what it says in brackets, such as which of two LoRAs is the faster."""
    value: float
    lower: float | None = None
    """The lower quartile of its samples; None where it is no median of several."""


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
                    quantity = fields["quantity"].partition(" (")[0]
                    lower = float(fields["lower_quartile"]) if fields["lower_quartile"] else None
                    found.append(Line(model, name, rank and f"r={rank}", quantity, float(fields["value"]), lower))
            except (KeyError, TypeError, ValueError) as error:
                raise ReportError(
                    f"{path}, line {number}: not a line of the benchmark ({type(error).__name__}: {error}); "
                    "`python scripts/benchmark.py costs` writes the file"
                ) from error
    return found


def values(lines: Sequence[Line], method: str, quantity: str) -> dict[Case, float]:
    """Model and rank -> a method's value of a quantity."""
    return {(one.model, one.rank): one.value for one in lines if (one.method, one.quantity) == (method, quantity)}


def lower_quartiles(lines: Sequence[Line], method: str, quantity: str) -> dict[Case, float]:
    """Model and rank -> the lower quartile of a method's samples of a quantity, where it has several."""
    own = [one for one in lines if (one.method, one.quantity) == (method, quantity)]
    return {(one.model, one.rank): one.lower for one in own if one.lower is not None}


def ratios(own: dict[Case, float], other: dict[Case, float]) -> dict[Case, float]:
    """Own values relative to another method's of the same rank, or of the same model where that has no rank."""
    rivals = {(model, rank): other.get((model, rank), other.get((model, ""))) for model, rank in own}
    return {case: value / rival for case, value in own.items() if (rival := rivals[case])}
