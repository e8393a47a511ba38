"""The JSON records of runs: write, read and find them, and look up their settings and scores. Imports no torch."""

from __future__ import annotations

from rosa.config import HOLDOUT
from rosa.errors import RecordError
from rosa.records.record import (
    LOCK,
    RECORD,
    SCHEMA,
    describe,
    error_line,
    folder,
    identity,
    lower_is_better,
    new,
    now,
    order_key,
    read,
    run_folder,
    score,
    selection_rule,
    write,
)
from rosa.records.schema import RULES, STATUSES, Costs, Evaluation, Generation, Record, Rule, Split, Subspace, by_split
from rosa.records.settings import default_settings, learning_rate, settings
from rosa.records.store import Evidence, find, is_committed, locate

__all__ = [
    "Evidence",
    "HOLDOUT",
    "LOCK",
    "RECORD",
    "RULES",
    "SCHEMA",
    "STATUSES",
    "Costs",
    "Evaluation",
    "Generation",
    "Record",
    "RecordError",
    "Rule",
    "Split",
    "Subspace",
    "by_split",
    "default_settings",
    "describe",
    "error_line",
    "find",
    "folder",
    "identity",
    "is_committed",
    "learning_rate",
    "locate",
    "lower_is_better",
    "new",
    "now",
    "order_key",
    "read",
    "run_folder",
    "score",
    "selection_rule",
    "settings",
    "write",
]
