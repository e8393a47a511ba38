"""Write a table as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rosa.report.tables.table import Cell, Span, Table

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
"""Last code point of the Latin blocks that pdflatex typesets without further packages."""


def escape(text: str) -> str:
    """Escape plain text for LaTeX; a character that pdflatex lacks becomes its code: ``[U+2192]``."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isspace() or not character.isprintable():
        return " "
    return character if ord(character) <= LAST_LATIN else f"[U+{ord(character):04X}]"


def latex(table: Table) -> str:
    r"""A ``table*`` environment for ``\input``; the document needs ``booktabs`` and ``graphicx``.

    A table wider than the page is scaled down to fit.
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
        *(_latex_row(row) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}}",
        "",
        "\\medskip",
        "\\begin{minipage}{\\linewidth}\\raggedright\\scriptsize",
        *("".join(map(_latex_span, note)) + "\\par" for note in (*table.notes, *table.legend)),
        "\\end{minipage}",
        "\\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(row: Sequence[Cell]) -> str:
    written = " & ".join(map(_latex_cell, row))
    # After the end of the row before, these are the length or the star of LaTeX's command for it.
    return "{}" + written if written.startswith(("[", "*")) else written


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
        # Keeps "--" from becoming a dash, and lets long paths break after a slash or an equals sign.
        text = re.sub(r"([/=])", r"\1\\allowbreak{}", text.replace("--", "-{}-"))
    return f"{command}{{{text}}}" if command else text
