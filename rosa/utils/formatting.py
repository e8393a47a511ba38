"""Format scores for people: fractions in hundredths, other metrics with a fixed number of decimals."""

from __future__ import annotations

from collections.abc import Sequence

MIB = 2**20
"""Bytes in a MiB."""

DECIMALS = {"loss": 3, "mse": 4, "perplexity": 2, "mean_of_batches": 2, "bits_per_token": 3, "nist": 2, "cider": 2}
"""Metrics shown unscaled, with their decimals; all others are fractions, shown x100 with one decimal."""


def written(metric: str, value: float | None) -> str:
    """Format a score: a fraction (accuracy, correlation) in hundredths, an error unscaled."""
    if value is None:
        return "undefined"
    return f"{value:.{DECIMALS[metric]}f}" if metric in DECIMALS else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of equal length as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
