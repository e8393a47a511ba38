"""Estimate a sweep's runs, floating-point operations and GPU hours, without starting it."""

from __future__ import annotations

from rosa.errors import RosaError


class PlanError(RosaError, ValueError):
    """A number that a plan needs is not known; the message names it."""
