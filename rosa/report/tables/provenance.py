"""Where a table comes from: its runs' number, commits and commands, and the command that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rosa.records import Record, is_committed
from rosa.report.comparison import Comparison
from rosa.report.tables.table import Line, Span

COMMANDS = 3
"""Largest number of commands listed; the CSV file has them all."""


def provenance(comparison: Comparison) -> list[Line]:
    """Number of runs, their commits and commands; and the command that makes the table."""
    commands = sorted({run["command"] for run in comparison.runs})
    more = f", and {len(commands) - COMMANDS} more in the CSV file" if len(commands) > COMMANDS else ""
    return [
        (
            Span(f"Runs: {len(comparison.runs)}{_committed(comparison)}. Commit: "),
            *_joined(sorted({commit(run) for run in comparison.runs})),
            Span("."),
        ),
        (Span("Repeat with: "), *_joined(commands[:COMMANDS]), Span(more + ".")),
        (
            Span("Table: "),
            command_of(
                "make_tables",
                comparison,
                ("--rule", comparison.rule, *comparison.words.records, *comparison.words.table),
            ),
            Span("."),
        ),
    ]


def command_of(script: str, comparison: Comparison, words: Sequence[str]) -> Span:
    """The command that runs a script for an experiment."""
    return Span(shlex.join(["python", f"scripts/{script}.py", "--experiment", comparison.experiment, *words]), "code")


def _committed(comparison: Comparison) -> str:
    """How many of the runs are committed records."""
    number = sum(map(is_committed, comparison.runs))
    if number == len(comparison.runs):
        return ", from records that are committed with the project; this folder has run none of them"
    return f", {number} of them from records that are committed with the project" if number else ""


def commit(run: Record) -> str:
    """A run's commit, twelve digits, and whether the working tree was modified."""
    known = run["environment"].get("commit")
    changed = " with uncommitted changes" if run["environment"].get("dirty") else ""
    return f"{known[:12]}{changed}" if known else "not recorded"


def _joined(pieces: Sequence[str]) -> list[Span]:
    spans: list[Span] = []
    for piece in pieces:
        spans += [Span(", ")] * bool(spans) + [Span(piece, "code")]
    return spans
