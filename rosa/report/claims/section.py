"""A section of the page: a heading, paragraphs and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rosa import records
from rosa.report import formatting
from rosa.report.claims.verdicts import Difference
from rosa.report.comparison import Comparison
from rosa.report.tables.markdown import markdown, paragraph
from rosa.report.tables.table import Cell, Table

VERDICT = "Verdict"
"""The last column of a table of claims; its first has their words."""


Line = tuple[Cell, ...]


@dataclass(frozen=True)
class ClaimsTable(Table):
    """A table of claims about scores, with the differences behind its cells."""

    found: tuple[tuple[Difference | None, ...], ...] = ()
    """Of each line, those that decide its verdict; None where one of them has no runs."""
    each: str = ""
    """What a line has a difference on each of (tasks, ranks); empty where one difference decides it."""


class Claimed(NamedTuple):
    """A line of a table of claims."""

    table: Table
    cells: Line
    found: tuple[Difference | None, ...]
    """The differences that decide it; none where it is about costs."""


def verdict(line: Line) -> str:
    """The verdict of a line, without what it says in brackets."""
    return line[-1].text.partition(" (")[0]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    heading: str
    parts: Sequence[str | Table]
    """Paragraphs of Markdown, and tables."""
    study: str = ""
    """Data and model that its claims are about, where those are one, see :func:`study_of`."""

    @property
    def claims(self) -> list[Claimed]:
        """The lines of its tables of claims."""
        tables = (part for part in self.parts if isinstance(part, Table) and part.header[-1] == VERDICT)
        return [
            Claimed(table, line, table.found[place] if isinstance(table, ClaimsTable) else ())
            for table in tables
            for place, line in enumerate(table.rows)
        ]

    def markdown(self) -> str:
        """The section as Markdown."""
        parts = (markdown(part) if isinstance(part, Table) else paragraph(part) + "\n" for part in self.parts)
        return "\n".join([f"## {self.heading}\n", *parts])


def model_of(comparison: Comparison) -> str:
    """The models of a comparison with their numbers of parameters: ``minilm (22.71M)``."""
    sizes: dict[str, set[int]] = {}
    for run in comparison.shown:
        sizes.setdefault(run["identity"]["model"], set()).add(run["params"].get("total", 0))
    return listed(f"{model} ({formatting.count(max(found))})" for model, found in sorted(sizes.items()))


def study_of(comparison: Comparison, tasks: str = "") -> str:
    """Experiment, tasks and models of a comparison: ``evidence_rank: CoLA, minilm (22.71M)``."""
    names = listed(formatting.task_name(task.name) for task in comparison.tasks)
    return f"{comparison.experiment}: {tasks or names}, {model_of(comparison)}"


def protocol(comparison: Comparison) -> str:
    """Tasks, epochs, precision and seeds of an experiment: ``CoLA, RTE, 3 epochs in bf16, 3 to 5 seeds``."""
    trained = [records.settings(run) for run in comparison.runs]
    tasks = listed(formatting.task_name(task.name) for task in comparison.tasks)
    epochs = listed(sorted({str(train["train.epochs"]) for train in trained}))
    precision = listed(sorted({train["train.precision"] for train in trained}))
    results = [result for row in comparison.rows for result in row.results.values()]
    seeds = sorted({len(result.selected.scored) for result in results})
    return (
        f"{tasks}, {epochs} epochs in {precision}, {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    )


def tuned_on(comparison: Comparison) -> str:
    """``; the learning rate of each row is tuned on seed 0``, with the seeds that did; nothing without tuning."""
    seeds = sorted({run["tuning"]["seed"] for run in comparison.shown if run["tuning"]})
    return f"; the learning rate of each row is tuned on seed {listed(map(str, seeds))}" if seeds else ""


def listed(items: Iterable[str]) -> str:
    """Items with commas between them."""
    return ", ".join(items)
