"""Every table compiles with pdflatex, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rosa.records import find
from rosa.report.study import Study
from rosa.report.tables import experiment
from rosa.report.tables.latex import escape, latex
from rosa.report.tables.table import Cell, Span, Table
from tests.report.test_generation import four_methods
from tests.report.test_rank_frequency import crossed
from tests.report.test_tables import ROOT, every_task, nasty_table

PREAMBLE = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{lmodern,booktabs,graphicx}\begin{document}"


def compiled(folder: Path, made: list[Table]) -> str:
    """The log of a document with these tables.

    Asserts that pdflatex accepts it.
    """
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended lmodern)")
    found = subprocess.run(["kpsewhich", "booktabs.sty", "lmodern.sty"], capture_output=True, text=True, check=False)
    if len(found.stdout.split()) < 2:
        pytest.skip("LaTeX lacks booktabs or lmodern (Debian: texlive-latex-recommended lmodern)")
    body = "\n\\clearpage\n".join(map(latex, made))
    (folder / "all.tex").write_text(f"{PREAMBLE}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_every_table_of_the_committed_records_compiles_and_fits_the_page(tmp_path):
    found, problems = find(ROOT / "results")
    assert not problems
    made = []
    for name in sorted({record["identity"]["experiment"] for record in found}):
        made += [*experiment.tables(Study(found, name)), *experiment.costs(Study(found, name))[0]]
    assert len(made) > 8
    log = compiled(tmp_path, made)
    assert "Overfull \\hbox" not in log


def test_tables_of_every_kind_and_every_character_compile(tmp_path):
    made = [
        *experiment.tables(Study(four_methods(), "glue")),
        *experiment.tables(Study(crossed(), "glue")),
        *experiment.tables(Study(every_task(), "glue")),
        nasty_table(),
        Table(
            "x",
            "é £ ± — \u2028 → 漢 \x07",
            ("a", "b"),
            ((Cell("ü"), Cell("²")), (Cell("Δ *"), Cell("1"))),
            ((Span("ß ✓", "code"),),),
        ),
    ]
    log = compiled(tmp_path, made)
    assert "Output written on all.pdf" in log


def test_a_character_that_pdflatex_lacks_is_named():
    assert escape("a→b\x07") == "a[U+2192]b "
    assert escape("é") == "é"
