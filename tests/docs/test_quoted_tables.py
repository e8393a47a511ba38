"""The tables of results that the README and docs quote are those of the committed records, cell by cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from rosa.records import Rule, find
from rosa.records.baselines import find as find_baselines
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Trial, summarise
from rosa.report.grouping import by_model, compare
from rosa.report.study import Study
from rosa.report.tables.experiment import tables
from rosa.report.tables.markdown import markdown
from tests.conftest import ROOT

Grid = list[list[str]]
"""Header and body of a Markdown table: the text of each cell, with its markup."""


def grids(text: str) -> list[Grid]:
    """Every table of a Markdown page, without the line below its header."""
    found: list[Grid] = []
    block: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif block:
            found.append([block[0], *block[2:]])
            block = []
    return found


def built(experiment: str, number: int = 0) -> Callable[[], Grid]:
    """The experiment's table of this number, made from the committed records."""
    return lambda: made(experiment)[number]


@cache
def made(experiment: str) -> list[Grid]:
    found, problems = find(ROOT / "results", experiment, "alone")
    baselines, lost = find_baselines(ROOT / "results")
    assert found
    assert (problems, lost) == ([], [])
    return [grids(markdown(table))[0] for table in tables(Study(found, experiment, baselines=baselines))]


def compared(experiment: str, model: str, rule: Rule) -> Comparison:
    found, _ = find(ROOT / "results", experiment, "alone")
    return compare(by_model(found, experiment)[model], experiment, rule)


def one(comparison: Comparison, **wanted: Any) -> Row:
    """The only row whose method has these options."""
    rows = [row for row in comparison.rows if all(row.settings.get(f"method.{k}") == v for k, v in wanted.items())]
    assert len(rows) == 1, wanted
    return rows[0]


def mean(row: Row, task: str, metric: str, split: str = "validation") -> float:
    return mean_of(row.results[task].selected, metric, split)


def mean_of(trial: Trial, metric: str, split: str) -> float:
    found = summarise(trial.scores(split, metric).values())
    assert found is not None
    return found.mean


def factorizations() -> Grid:
    comparison, metric = compared("ablation", "minilm", "best"), "matthews_correlation"
    names = {
        "svd_equal": "singular vectors",
        "random_orthogonal": "a random orthonormal basis",
        "random_add": "random `B`",
        "svd_add": "singular vectors, whole weight kept",
    }
    grid = [["subspace", "drawn once", "drawn anew each epoch"]]
    for factorization, name in names.items():
        wanted = {"name": "rosa", "factorization": factorization, "rank": 8, "sampling": "random"}
        rows = [one(comparison, **wanted, every=every) for every in (0, 1)]
        grid.append([name, *(formatting.score(mean(row, "cola", metric), metric) for row in rows)])
    return grid


def regression_lines(*ranks: int) -> list[tuple[str, dict[str, Any]]]:
    """Name and options of each row of a regression's table."""
    lines: list[tuple[str, dict[str, Any]]] = [("full", {"name": "full"})]
    for name, method in (
        ("LoRA", {"name": "lora"}),
        ("ROSA", {"name": "rosa", "factorization": "svd_equal"}),
        ("`random_add`", {"name": "rosa", "factorization": "random_add"}),
    ):
        lines += [(f"{name} r={rank}", {**method, "rank": rank}) for rank in ranks]
    return lines


def regression_errors() -> Grid:
    both = [compared("regression_linear", "linear", "last"), compared("regression_mlp", "mlp", "last")]
    body = [
        [name, *(f"{mean(one(found, **wanted), 'regression', 'mse'):.4f}" for found in both)]
        for name, wanted in regression_lines(1, 2, 4, 8)
    ]
    return [["", "linear", "perceptron"], *body]


def real_regression_errors() -> Grid:
    best, last = (compared("regression_diabetes", "mlp", rule) for rule in ("best", "last"))
    grid = [["", "held-out rows", "training rows"]]
    for name, wanted in regression_lines(1, 2)[:-2]:  # without random_add
        held_out = mean(one(best, **wanted), "regression", "mse", "test")
        fits = [mean_of(trial, "mse", "train") for trial in one(last, **wanted).results["regression"].trials]
        grid.append([name, f"{held_out:.3f}", f"{min(fits):.3f}"])
    return grid


NO_RECORDS = None
"""The page says that the records of the table's runs are not committed."""
QUOTED: dict[str, list[Callable[[], Grid] | None]] = {
    "README.md": [built("evidence_glue")],
    "docs/results.md": [
        NO_RECORDS,
        built("e2e_mini"),
        built("glue_minilm"),
        built("e2e_real"),
        built("evidence_e2e"),
        built("evidence_rank", 1),
        factorizations,
        built("rank_frequency", 1),
    ],
    "docs/robust.md": [built("robust_mini", number) for number in range(3)],
    "docs/theory.md": [regression_errors, real_regression_errors],
}
"""Page -> what makes each table of results on it, in their order."""


def quoted(page: str) -> list[Grid]:
    """The page's tables of results: their first column has methods or settings of runs, and others have scores."""
    every = grids((ROOT / page).read_text(encoding="utf-8"))
    return [
        grid
        for grid in every
        if grid[0][0] in ("Method", "Rank", "subspace") or {"perceptron", "held-out rows"} & set(grid[0])
    ]


@pytest.mark.parametrize("page", QUOTED)
def test_a_quoted_table_is_that_of_the_committed_records(page: str) -> None:
    shown = quoted(page)
    assert len(shown) == len(QUOTED[page]), f"{page}: a table of results is not in QUOTED"
    for grid, make in zip(shown, QUOTED[page], strict=True):
        if make is not None:
            assert grid == make()


def test_every_page_that_quotes_a_table_of_methods_is_tested() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("results*.md"))]
    assert {str(page.relative_to(ROOT)) for page in pages} <= set(QUOTED)
    text = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert text.count("whose records are not committed") == QUOTED["docs/results.md"].count(NO_RECORDS)


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/robust.md"])
def test_the_letters_of_a_quoted_table_are_explained_below_it(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"(?:^\|.*\n)+\n(?:.+\n)+", text, re.MULTILINE):
        table, below = block.rsplit("|\n\n", 1)
        letters = {mark for marks in re.findall(r"<sup>([^<]*)</sup>", table) for mark in marks.split(",")}
        for letter in letters - {r"\*"}:
            assert f"<sup>{letter}</sup>" in below, f"{letter} below {table.splitlines()[2]}"
