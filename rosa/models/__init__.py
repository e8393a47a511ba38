"""Models: pretrained ones from the hub, a folder or a package, and the small networks of the regression tasks."""

from __future__ import annotations

from rosa.models.pretrained import ModelError, add_padding, length_limit, load, locate

__all__ = ["ModelError", "add_padding", "length_limit", "load", "locate"]
