"""The check that the metrics which a task names exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from rosa.errors import ConfigError


def refuse_unknown(names: Sequence[str], known: Iterable[str], kind: str = "") -> None:
    """Stop at a metric that nobody computes.

    Args:
        names: ``task.metrics``.
        known: the names of the metrics that there are.
        kind: of what they are metrics, for the message.

    Raises:
        ConfigError: a name that is not known, with the nearest one that is.
    """
    there = list(known)
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            what = f"no metric {kind} is called" if kind else "no metric is called"
            raise ConfigError(f"task.metrics: {what} {name!r}; {hint}Known are {', '.join(there)}")
