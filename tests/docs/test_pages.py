"""The README is short, every page can be reached from it, and no link is broken."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def linked(page: Path) -> list[Path]:
    """The files and folders that a page links to."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [(page.parent / target).resolve() for target in targets if "://" not in target]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: ``## What `x` does`` has ``what-x-does``."""
    found: set[str] = set()
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ +(.*?) *$", outside, flags=re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        copies = (f"{name}-{number}" for number in itertools.count(1))
        found.add(name if name not in found else next(copy for copy in copies if copy not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in linked(page) if not target.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_a_page_lead_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8"))
    for target, anchor in links:
        to = (page.parent / target).resolve() if target else page
        if to.suffix == ".md":
            assert anchor in anchors(to.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_anchors_are_githubs() -> None:
    page = "# A `b`: c, d\n```\n# no heading\n```\n## E_f-g\n## E_f-g\n### [The page](x.md) (2 of 3)\n"
    assert anchors(page) == {"a-b-c-d", "e_f-g", "e_f-g-1", "the-page-2-of-3"}


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 160
    assert {page for page in PAGES if page != readme} <= set(linked(readme))


def test_the_readme_tells_the_two_methods_of_one_name_apart_where_they_meet_first() -> None:
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    first = next(paragraph for paragraph in paragraphs if "RoSA" in paragraph)
    assert paragraphs.index(first) <= 2
    assert "Robust Adaptation" in first
