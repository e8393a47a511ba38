"""Models: pretrained ones from the hub, a folder or a package, and small networks for the regression tasks."""

from __future__ import annotations

from rosa.errors import ModelError
from rosa.models.pretrained import add_padding, length_limit, load, locate, skeleton

__all__ = ["ModelError", "add_padding", "length_limit", "load", "locate", "skeleton"]
