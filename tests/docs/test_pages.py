"""The README is short, every page can be reached from it, and no link is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def linked(page: Path) -> list[Path]:
    """The files and folders that a page links to."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [(page.parent / target).resolve() for target in targets if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in linked(page) if not target.exists()] == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 160
    assert {page for page in PAGES if page != readme} <= set(linked(readme))


def test_the_readme_tells_the_two_methods_of_one_name_apart_where_they_meet_first() -> None:
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    first = next(paragraph for paragraph in paragraphs if "RoSA" in paragraph)
    assert paragraphs.index(first) <= 2
    assert "Robust Adaptation" in first
