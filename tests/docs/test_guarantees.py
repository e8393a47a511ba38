"""Every test that docs/guarantees.md and docs/testing.md name exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

TEST = re.compile(r"tests/[\w/]+\.py::\w+")
FILE = re.compile(r"`((?:tests|scripts)/[\w/]+\.(?:py|sh))(?:::\w+)?`")


@pytest.mark.parametrize("page", ["guarantees.md", "testing.md"])
def test_what_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).is_file()] == []
    for test in dict.fromkeys(TEST.findall(text)):
        path, _, name = test.partition("::")
        defined = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")}
        assert name in defined, test


def test_each_promise_names_a_test() -> None:
    """Every row of a table but its head."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))]
    assert len(rows) > 30
    assert [row for row in rows if not TEST.search(row.rpartition(" | ")[2])] == []
