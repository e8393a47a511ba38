"""Runs a script in this process."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.conftest import ROOT


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """Run ``scripts/NAME.py`` as a command with these arguments; its exit status."""
    path = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    return int(ended.value.code or 0)
