"""A finished table, and how it is written as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
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


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """The table with its caption above and its notes below, in GitHub's Markdown; columns are padded to align."""
    grid = [[markdown_text(cell) for cell in table.header]]
    grid += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    widths = [max(3, *(len(row[i]) for row in grid)) for i in range(len(table.header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_markdown_row(grid[0], widths), "| " + " | ".join(rule) + " |"]
    lines += [_markdown_row(row, widths) for row in grid[1:]]
    notes = ["- " + "".join(map(_markdown_span, note)) for note in table.notes]
    return "\n".join([f"**{markdown_text(table.caption)}**", "", *lines, "", *notes]) + "\n"


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
        # A fence one backtick longer than any inside keeps the text as it is.
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", span.text)), default=0))
        pad = " " if "`" in span.text else ""
        return f"{fence}{pad}{_one_line(span.text)}{pad}{fence}"
    text = markdown_text(span.text)
    return f"**{text}**" if span.style == "bold" else text


def markdown_text(text: str) -> str:
    """A text as one line of Markdown in which nothing of it is taken for markup."""
    # An underscore inside a word is plain text in GitHub's Markdown, and stays readable unescaped.
    text = re.sub(r"([\\`*|<>\[\]])", r"\\\1", _one_line(text))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


# --- LaTeX -----------------------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "²": r"\textsuperscript{2}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "—": "---",
    "–": "--",
    "\n": " ",
}


LAST_LATIN = 0x17F
"""The last character of Unicode's Latin blocks that pdflatex sets without further packages."""


def escape(text: str) -> str:
    """Plain text as LaTeX that prints the same; a character that pdflatex lacks is named: ``[U+2192]``."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isspace() or not character.isprintable():
        return " "
    return character if ord(character) <= LAST_LATIN else f"[U+{ord(character):04X}]"


def latex(table: Table) -> str:
    r"""A ``table*`` environment for ``\input``; the document needs ``booktabs`` and ``graphicx``.

    A table that is wider than the page is made smaller until it fits.
    """
    columns = "l" + "r" * (len(table.header) - 1)
    header = " & ".join(escape(cell) for cell in table.header)
    lines = [
        "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs,graphicx}",
        "\\begin{table*}",
        "\\centering",
        "\\footnotesize",
        "\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(table.caption)}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        f"{header} \\\\",
        "\\midrule",
        *(" & ".join(map(_latex_cell, row)) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}}",
        "",
        "\\medskip",
        "\\begin{minipage}{\\linewidth}\\raggedright\\scriptsize",
        *("".join(map(_latex_span, note)) + "\\par" for note in table.notes),
        "\\end{minipage}",
        "\\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = escape(cell.text)
    marks = f"\\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else ""
    if cell.underlined:
        text = f"\\underline{{{text}}}"
    return (f"\\textbf{{{text}}}" if cell.bold else text) + marks


def _latex_span(span: Span) -> str:
    command = {"plain": "", "bold": "\\textbf", "code": "\\texttt"}[span.style]
    text = escape(span.text)
    if span.style == "code":
        # Two hyphens stay two hyphens, and a long path may break after a slash or an equals sign.
        text = re.sub(r"([/=])", r"\1\\allowbreak{}", text.replace("--", "-{}-"))
    return f"{command}{{{text}}}" if command else text
