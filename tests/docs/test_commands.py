"""The commands that the pages print can be run: their overrides compose, and their experiments exist."""

from __future__ import annotations

import pytest

from rosa.config import register
from rosa.sweep.grid import expand
from rosa.sweep.jobs import request
from tests.conftest import ROOT
from tests.docs.pages import blocks, commands_of, filled

CONF = ROOT / "conf"
WITH_FILES = ("adding", "own_data", "own_model")
"""Pages whose commands need files that the pages write; tests of their own run them."""
PAGES = {
    path.stem: "\n".join(block.text for block in blocks(path.read_text(encoding="utf-8")))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.stem not in WITH_FILES
}
"""The fenced blocks of each page."""
TRAININGS = [(page, words) for page, text in PAGES.items() for words in commands_of("train", text)]
PLANS = [(page, words) for page, text in PAGES.items() for words in commands_of("plan", text)]
NAMED = [
    (page, words)
    for page, text in PAGES.items()
    for script in ("make_tables", "make_figures", "make_baselines", "make_samples")
    for words in commands_of(script, text)
]


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


@pytest.mark.parametrize(("page", "words"), [*TRAININGS, *PLANS])
def test_every_run_can_be_composed(page: str, words: list[str]) -> None:
    asked = request(filled([word for word in words if word != "-m"]))
    assert asked.options == ()
    next(expand(CONF, asked))


def known() -> set[str]:
    """The experiments that are files or have committed records, or that the commands of the pages name."""
    files = [path.stem for path in (ROOT / "experiments").glob("*.yaml")]
    committed = [path.name for path in (ROOT / "results" / "records").iterdir()]
    named = [word.partition("=")[2] for _, words in TRAININGS for word in words if word.startswith("experiment_name=")]
    return {*files, *committed, *named}


@pytest.mark.parametrize(("page", "words"), NAMED)
def test_every_experiment_is_known(page: str, words: list[str]) -> None:
    names = [word for word in words if not word.startswith("-")]
    assert names or "--experiment" not in words
    assert set(names) <= known()


def test_the_commands_are_found() -> None:
    assert {"README", "e2e", "results", "robust", "runs", "theory"} <= {page for page, _ in TRAININGS}
    assert {"results", "robust", "theory"} <= {page for page, _ in NAMED}
