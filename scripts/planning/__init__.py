"""What a sweep would take: its runs, floating-point operations and GPU hours, without starting it."""

from __future__ import annotations

from rosa.errors import RosaError


class PlanError(RosaError, ValueError):
    """Something that a plan needs is not known."""
