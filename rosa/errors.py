"""Every error that the project raises on purpose, under one root."""

from __future__ import annotations


class ScoringError(ValueError):
    """Texts that cannot be scored; the message names the file and line, or the segment, and what would be right."""


class ExportError(ValueError):
    """Weights that cannot be exported as asked; the message names the layer, file or folder and what would be right."""
