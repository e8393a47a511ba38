"""scripts/audit.py with a stand-in for pip-audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import audit
import pytest

from rosa.errors import RosaError
from tests.commands import script

CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
KNOWN = {"name": "torch", "version": "2.6.0", "vulns": [{"id": "PYSEC-2025-1", "fix_versions": ["2.7.0"]}]}


def program(folder: Path, output: str, errors: str = "") -> Path:
    path = folder / "pip-audit"
    path.write_text(f"#!{sys.executable}\nimport sys\nprint({output!r})\nprint({errors!r}, file=sys.stderr)\n")
    path.chmod(0o755)
    return path


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *packages: object) -> int:
    pins = tmp_path / "pins.txt"
    pins.write_text("numpy==2.4.6\ntorch==2.6.0\n")
    made = program(tmp_path, json.dumps({"dependencies": packages, "fixes": []}))
    monkeypatch.setattr(audit, "installed", lambda folder: made)
    monkeypatch.setattr(sys, "argv", ["audit.py", "--pins", str(pins)])
    return audit.main()


def test_known_vulnerabilities_are_named(monkeypatch, tmp_path, capsys) -> None:
    assert run(monkeypatch, tmp_path, CLEAN, KNOWN) == 1
    assert capsys.readouterr().out.splitlines() == [
        "torch 2.6.0: PYSEC-2025-1, fixed in 2.7.0",
        "2 pins in pins.txt, 1 with known vulnerabilities",
    ]
    assert run(monkeypatch, tmp_path, CLEAN) == 0


def test_an_index_that_cannot_be_asked_is_said(tmp_path: Path) -> None:
    silent = program(tmp_path, "", "Traceback ...\nConnectionError: no route to host")
    with pytest.raises(RosaError, match=r"cannot be asked \(ConnectionError: no route to host\)"):
        audit.vulnerabilities(silent, tmp_path / "pins.txt")


def test_another_failure_is_not_taken_for_an_unreachable_index(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    with pytest.raises(RosaError, match="pip-audit==.* ended with 0: ERROR: invalid requirement: torch===$") as refused:
        audit.vulnerabilities(program(tmp_path, "no JSON", "ERROR: invalid requirement: torch==="), pins)
    assert "index" not in str(refused.value)


@pytest.mark.parametrize(("name", "why"), [("nothing.txt", "No such file"), ("", "Is a directory")])
def test_pins_that_cannot_be_read_are_named_before_the_index_is_asked(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name if name else tmp_path
    assert script(monkeypatch, "audit", "--pins", path) == 2
    assert capsys.readouterr().err.startswith(f"error: --pins {path}: {why}")


def test_a_tool_that_cannot_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "TOOL", "no-such-package-of-this-name==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RosaError, match="cannot be installed: the package index cannot be asked"):
        audit.installed(tmp_path / "venv")
