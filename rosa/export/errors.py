"""What an export that is refused raises."""

from __future__ import annotations


class ExportError(ValueError):
    """Weights that cannot be exported as asked; the message names the layer, file or folder and what would be right."""
