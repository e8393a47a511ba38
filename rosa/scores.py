"""How a score is written on the screen."""

from __future__ import annotations

ERRORS = ("loss", "mse", "perplexity", "bits_per_token")
"""Metrics that are no share of anything, and are not shown in hundredths."""


def written(metric: str, value: float | None) -> str:
    """A share (an accuracy, a correlation) in hundredths, an error as it is."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if metric in ERRORS else f"{100 * value:.1f}"
