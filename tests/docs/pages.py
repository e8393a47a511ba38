"""The fenced blocks of a page of docs/, and a folder to run them in, for the tests that do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.commands import command
from tests.conftest import ROOT


@dataclass(frozen=True)
class Block:
    """One fenced block: the words after its fence, its text, and the number of the line before the text."""

    label: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    fenced = re.finditer(r"^```([^\n]*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], page.count("\n", 0, match.start(2))) for match in fenced]


def commands_of(script: str, text: str) -> list[list[str]]:
    """The arguments of each command ``python scripts/SCRIPT.py`` that begins a line, and goes on after ``\\``."""
    found = re.findall(rf"^ *python scripts/{script}\.py(?: (.*))?$", text.replace("\\\n", " "), flags=re.MULTILINE)
    return [shlex.split(words, comments=True) for words in found]


def filled(words: list[str]) -> list[str]:
    """Overrides with values for what a page leaves to its reader."""
    return [re.sub(r"=DIR$", "=folder", re.sub(r"=N$", "=100", word)) for word in words]


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
        done = subprocess.run(
            ["bash", "-ec", replaced(commands, changes or {})],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{commands}\n{said}"
        return said

    def run_scripts(self, commands: str, status: int = 0) -> str:
        """As :meth:`run`, of commands that are all ``python SCRIPT ...``: none imports PyTorch again.

        They find no Java, with which METEOR would take ten seconds.
        """
        environment = {**self._environment(), "PATH": str(Path(sys.executable).parent)}
        said = ""
        for line in commands.replace("\\\n", " ").splitlines():
            python, *words = shlex.split(line)
            assert python == "python", line
            done = command(*self._expanded(words), cwd=self.folder, environment=environment)
            said += done.stdout + done.stderr
            assert done.returncode == status, f"{line}\n{said}"
        return said

    def _expanded(self, words: list[str]) -> list[str]:
        """Patterns of paths replaced by the paths, as a shell does it."""
        found = {word: sorted(self.folder.glob(word)) if "*" in word else [] for word in words}
        paths = {word: [str(path.relative_to(self.folder)) for path in found[word]] for word in words}
        return [path for word in words for path in paths[word] or [word]]

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}:{self.site}", "OMP_NUM_THREADS": "1"}


def replaced(commands: str, changes: Mapping[str, str]) -> str:
    """Commands with words replaced; each word must occur."""
    for old, new in changes.items():
        assert old in commands, f"{old!r} is not in {commands!r}"
        commands = commands.replace(old, new)
    return commands
