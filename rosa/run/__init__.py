"""One run, end to end: the only package that imports every stage.

The names below are loaded on first use, so that looking for a finished run does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rosa.errors import BusyError

if TYPE_CHECKING:
    from rosa.run.pipeline import Outcome, run

__all__ = ["BusyError", "Outcome", "run"]


def __getattr__(name: str) -> Any:
    if name not in ("Outcome", "run"):
        raise AttributeError(f"module 'rosa.run' has no attribute {name!r}; it has {', '.join(__all__)}")
    from rosa.run import pipeline

    return getattr(pipeline, name)
