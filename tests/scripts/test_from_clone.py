"""Every script runs from a clone that is not installed, and what it starts finds the package too."""

from __future__ import annotations

import os
import runpy
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Ended, begin_in
from tests.conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py") if path.name != "from_clone.py")
LIBRARIES = ("torch", "transformers", "peft", "hydra", "matplotlib.pyplot", "datasets", "pytest")
"""What scripts import beside the package, and take long to."""


class Uninstalled:
    """A Python that has all packages but the project: ``-S`` leaves out the ``.pth`` file of an editable installation.

    It runs in another folder, and its scripts in forks of a process that has imported :data:`LIBRARIES`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        packages = os.pathsep.join([*site.getsitepackages(), site.getusersitepackages()])
        self.environment |= {"PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
        server = (ROOT / "tests" / "command_server.py").read_text(encoding="utf-8")
        program = [sys.executable, "-S", "-c", server, *LIBRARIES]
        self.server = subprocess.Popen(
            program, cwd=folder, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, script: Path, *words: str) -> Ended:
        return begin_in(self.server, [script, *words], self.folder, self.environment, {}).end()


@pytest.fixture(scope="module")
def uninstalled(tmp_path_factory: pytest.TempPathFactory) -> Uninstalled:
    return Uninstalled(tmp_path_factory.mktemp("uninstalled"))


def test_that_python_has_no_package_of_its_own(uninstalled: Uninstalled) -> None:
    script = uninstalled.folder / "script.py"
    script.write_text("import torch, hydra\nimport rosa\n")
    ended = uninstalled.run(script)
    assert ended.stderr.strip().endswith("ModuleNotFoundError: No module named 'rosa'")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_explains_itself(uninstalled: Uninstalled, name: str) -> None:
    ended = uninstalled.run(ROOT / "scripts" / name, "--help")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert len(ended.stdout.splitlines()) > 2
    assert "Error" not in ended.stderr


@pytest.mark.quick
def test_what_a_script_starts_finds_the_package_and_what_it_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["scripts", "library"])
    for before, after in ((None, [str(ROOT)]), ("one:two", [str(ROOT), "one", "two"]), (f"one:{ROOT}", None)):
        if before is None:
            monkeypatch.delenv("PYTHONPATH")
        else:
            monkeypatch.setenv("PYTHONPATH", before)
        runpy.run_path(str(ROOT / "scripts" / "from_clone.py"))
        assert os.environ["PYTHONPATH"].split(os.pathsep) == (after or str(before).split(os.pathsep))
        assert sys.path == ["scripts", str(ROOT), "library"]
