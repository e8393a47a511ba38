"""A section of the page: a heading, paragraphs and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rosa.report import formatting
from rosa.report.comparison import Comparison
from rosa.report.tables.markdown import markdown, paragraph
from rosa.report.tables.table import Table

VERDICT = "Verdict"
"""The last column of a table of claims; its first has their words."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    heading: str
    parts: Sequence[str | Table]
    """Paragraphs of Markdown, and tables."""

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """(claim, verdict) of every line of its tables of claims; the verdict without what it says in brackets."""
        tables = (part for part in self.parts if isinstance(part, Table) and part.header[-1] == VERDICT)
        return [(line[0].text, line[-1].text.partition(" (")[0]) for table in tables for line in table.rows]

    def markdown(self) -> str:
        """The section as Markdown."""
        parts = (markdown(part) if isinstance(part, Table) else paragraph(part) + "\n" for part in self.parts)
        return "\n".join([f"## {self.heading}\n", *parts])


def protocol(comparison: Comparison) -> str:
    """Tasks, epochs, precision and seeds of an experiment: ``CoLA, RTE, 3 epochs in bf16, 3 to 5 seeds``."""
    trained = [run["config"]["train"] for run in comparison.runs]
    tasks = listed(formatting.TASK_NAMES.get(task.name, task.name) for task in comparison.tasks)
    epochs = listed(sorted({str(train["epochs"]) for train in trained}))
    precision = listed(sorted({train["precision"] for train in trained}))
    results = [result for row in comparison.rows for result in row.results.values()]
    seeds = sorted({len(result.selected.scored) for result in results})
    return (
        f"{tasks}, {epochs} epochs in {precision}, {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    )


def listed(items: Iterable[str]) -> str:
    """Items with commas between them."""
    return ", ".join(items)
