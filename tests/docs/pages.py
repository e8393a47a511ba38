"""The fenced blocks of a page of docs/, and a folder to run them in, for the tests that do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

IN_ONE_PROCESS = """
import json, os, runpy, shlex, sys
for command in json.loads(sys.argv[1]):
    python, script, *arguments = shlex.split(command)
    assert python == "python", command
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # as Python does, and where Hydra finds its plugins
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{command}: {end.code}"
"""
"""Runs commands ``python SCRIPT ...`` one after the other: PyTorch and transformers are imported once."""


@dataclass(frozen=True)
class Block:
    """One fenced block: the words after its fence, its text, and the number of the line before the text."""

    label: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    fenced = re.finditer(r"^```([^\n]*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], page.count("\n", 0, match.start(2))) for match in fenced]


class Checkout:
    """A folder with the project's commands and configuration, in which a page's files are written and its commands run.

    Args:
        folder: a new one; beside it packages can be made.
        site: a folder for packages that the commands see as installed.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        self.site = site
        for name in ("scripts", "conf", "experiments"):
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))

    def write(self, block: Block) -> Path:
        """Write a block whose label is ``LANGUAGE file PATH``, the path from the checkout."""
        path = self.folder / block.label.split(" file ")[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return path

    def run(self, commands: str, changes: Mapping[str, str] | None = None, status: int = 0) -> str:
        """Run shell commands, and return their output on both streams.

        Args:
            commands: as a page prints them.
            changes: words of the commands to replace; each has to be there.
            status: the exit status that is expected.
        """
        return self._run(["bash", "-ec", replaced(commands, changes or {})], status)

    def run_in_one_process(self, commands: str) -> str:
        """Run shell commands that are all ``python SCRIPT ...`` in one process; a line may end in a backslash."""
        lines = commands.replace("\\\n", " ").splitlines()
        return self._run([sys.executable, "-c", IN_ONE_PROCESS, json.dumps(lines)], 0)

    def _run(self, command: list[str], status: int) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}:{self.site}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{command}\n{said}"
        return said


def replaced(commands: str, changes: Mapping[str, str]) -> str:
    """Commands with words replaced; each word must occur."""
    for old, new in changes.items():
        assert old in commands, f"{old!r} is not in {commands!r}"
        commands = commands.replace(old, new)
    return commands
