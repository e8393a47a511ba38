"""What scoring refuses."""

from __future__ import annotations


class ScoringError(ValueError):
    """Texts that cannot be scored; the message names the file and line, or the segment, and what would be right."""
