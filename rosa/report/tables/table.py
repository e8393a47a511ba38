"""A table independent of its output format: header, cells and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Span:
    """A piece of a note's text."""

    text: str
    style: Literal["plain", "bold", "code"] = "plain"


Line = tuple[Span, ...]


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and how it is marked."""

    text: str
    bold: bool = False
    """The best of its column."""
    marks: tuple[str, ...] = ()
    """The star of a significant difference, and the letters of the cell's footnotes."""
    underlined: bool = False
    """Close to the best."""


@dataclass(frozen=True)
class Table:
    """A table whose first column has labels and whose other columns have numbers."""

    name: str
    """File name without extension, and LaTeX label."""
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[Line, ...]
    legend: tuple[Line, ...] = ()
    """What marks and letters of the cells mean: further notes, which a page shows even where it folds the others."""


def text(*parts: str) -> Line:
    """A line of plain text."""
    return tuple(Span(part) for part in parts)


def loud(heading: str, body: str) -> Line:
    """A warning: a line whose heading is bold."""
    return (Span(heading, "bold"), Span(" " + body))
