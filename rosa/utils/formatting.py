"""How a score is written: which metrics are shares of one, and how many decimals the others have."""

from __future__ import annotations

from collections.abc import Sequence

DECIMALS = {"loss": 3, "mse": 4, "perplexity": 2, "bits_per_token": 3, "nist": 2, "cider": 2}
"""Metrics that are shown as they are, and their decimals; all others are shares of one, shown x100 with one decimal."""


def written(metric: str, value: float | None) -> str:
    """A score on the screen: a share (an accuracy, a correlation) in hundredths, an error as it is."""
    if value is None:
        return "undefined"
    return f"{value:.{DECIMALS[metric]}f}" if metric in DECIMALS else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, whose cells start where those of the other rows do; rows are of one length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
