"""A table before it is written in a format: cells, lines of notes, columns."""

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
    """One cell."""

    text: str
    bold: bool = False
    """The best of its column."""
    marks: tuple[str, ...] = ()
    """A star, and the letters of its footnotes."""
    underlined: bool = False
    """Close to the best."""


@dataclass(frozen=True)
class Table:
    """What is shown; the first column holds labels, the others numbers."""

    name: str
    """A file's name without its ending, and LaTeX's label."""
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[Line, ...]
