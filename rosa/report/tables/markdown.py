"""Write a table as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rosa.report.tables.table import Cell, Span, Table

WIDTH = 120
"""Of a paragraph's lines, where its words and links allow it."""


def markdown(table: Table) -> str:
    """The table with its caption above and its notes below, in GitHub's Markdown; columns are padded to align."""
    texts = [[markdown_text(cell) for cell in table.header]]
    texts += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    lines = grid(texts)
    notes = ["- " + "".join(map(_markdown_span, note)) for note in (*table.notes, *table.legend)]
    return "\n".join([f"**{markdown_text(table.caption)}**", "", *lines, "", *notes]) + "\n"


def grid(texts: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells, the header's first, are Markdown already."""
    widths = [max(3, *(len(row[i]) for row in texts)) for i in range(len(texts[0]))]
    separators = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return [
        _markdown_row(texts[0], widths),
        "| " + " | ".join(separators) + " |",
        *(_markdown_row(row, widths) for row in texts[1:]),
    ]


def paragraph(text: str) -> str:
    """A paragraph of Markdown, broken into lines between its words."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _markdown_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    marks = f"<sup>{markdown_text(','.join(cell.marks))}</sup>" if cell.marks else ""
    if cell.underlined:
        text = f"<u>{text}</u>"
    return (f"**{text}**" if cell.bold else text) + marks


def _markdown_span(span: Span) -> str:
    if span.style == "code":
        # A fence one backtick longer than the longest run inside.
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", span.text)), default=0))
        pad = " " if "`" in span.text else ""
        return f"{fence}{pad}{_one_line(span.text)}{pad}{fence}"
    text = markdown_text(span.text)
    return f"**{text}**" if span.style == "bold" else text


def markdown_text(text: str) -> str:
    """Escape a text as one line of Markdown without markup."""
    # An underscore inside a word is plain text in GitHub's Markdown and needs no escape.
    text = re.sub(r"([\\`*|<>\[\]~$])", r"\\\1", _one_line(text))
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)  # the code of a character
    # The beginning of a heading, or of an item of a list.
    text = re.sub(r"^(\d+(?=[.)])|(?=[#+=-]))([.)]|[#+=-]+)(?=\s|$)", r"\1\\\2", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
