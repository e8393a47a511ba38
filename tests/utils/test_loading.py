"""Loading without a search for garbage, which goes on afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rosa.utils.loading import load


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, bool]]]:
    """At each call of ``gc.freeze``, which does nothing here: is the module loaded, and is garbage searched for?"""
    calls: list[tuple[bool, bool]] = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(("heavy_module" in sys.modules, gc.isenabled())))
    yield calls
    sys.modules.pop("heavy_module", None)
    gc.enable()


def test_a_module_is_loaded_without_collection_and_left_out(tmp_path: Path, frozen: list[tuple[bool, bool]]) -> None:
    (tmp_path / "heavy_module.py").write_text("import gc\nsearched = gc.isenabled()\n")
    load("heavy_module")
    assert not sys.modules["heavy_module"].searched
    assert gc.isenabled()
    assert frozen == [(True, False)]
    load("heavy_module")
    assert len(frozen) == 1


def test_where_nothing_is_searched_it_stays_so(tmp_path: Path, frozen: list[tuple[bool, bool]]) -> None:
    (tmp_path / "heavy_module.py").touch()
    gc.disable()
    load("heavy_module")
    assert not gc.isenabled()
    assert frozen == [(True, False)]


def test_a_module_that_cannot_be_loaded_leaves_all_as_it_was(tmp_path: Path, frozen: list[tuple[bool, bool]]) -> None:
    (tmp_path / "heavy_module.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load("heavy_module")
    assert gc.isenabled()
    assert frozen == []
