"""One run, end to end: the only package that imports every stage."""

from __future__ import annotations

from rosa.errors import BusyError
from rosa.run.pipeline import Outcome, run

__all__ = ["BusyError", "Outcome", "run"]
