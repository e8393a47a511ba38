"""Runs scripts: in this process, or each in a process of its own that need not import PyTorch again."""

from __future__ import annotations

import functools
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

LIGHT = ("hydra", "rosa.config.explain", "rosa.sweep.local")
"""What commands import that do not load PyTorch."""
HEAVY = (*LIGHT, "rosa.run.pipeline", "rosa.run.baselines", "rosa.export", "matplotlib.pyplot")
"""What the others import; ``rosa.run`` alone would load nothing until it is used, and each command all of it again."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str
    torch: bool
    """Whether PyTorch was loaded by then."""


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """Run ``scripts/NAME.py`` as a command with these arguments; its exit status."""
    path = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    return int(ended.value.code or 0)


def answer(name: str, *arguments: str) -> Ended:
    """As :func:`script`, with what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        status = script(patch, name, *arguments)
    return Ended(status, out.getvalue(), err.getvalue(), "torch" in sys.modules)


@dataclass(frozen=True)
class Begun:
    """A command that was begun, in a process group of its own."""

    pid: int
    server: subprocess.Popen[str]

    def poll(self) -> int | None:
        """Its exit status; None if it has not ended."""
        return ask(self.server, "poll", self.pid)

    def end(self) -> Ended:
        """Wait for it; call this once."""
        return Ended(*ask(self.server, "end", self.pid))


def begin(
    *words: object,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    limits: Mapping[str, int] | None = None,
    light: bool = False,
) -> Begun:
    """Begin ``python WORDS`` in a process of its own, which finds PyTorch and the run's modules imported.

    Args:
        words: the script's path, and its arguments.
        cwd: the folder to run it in.
        environment: all its variables, without those that are read when a library is imported; this process's if None.
        limits: limits of the system by their names in the module ``resource``, for example ``RLIMIT_FSIZE``.
        light: only what commands import that do not load PyTorch is imported, so that they can be seen not to.
    """
    forked = server(*LIGHT) if light else server(*HEAVY)
    variables = dict(os.environ if environment is None else environment)
    return begin_in(forked, words, cwd, variables, limits or {})


def begin_in(
    server: subprocess.Popen[str],
    words: Sequence[object],
    cwd: Path,
    environment: Mapping[str, str],
    limits: Mapping[str, int],
) -> Begun:
    """As :func:`begin`, forked from this server."""
    asked = ([str(word) for word in words], str(cwd), dict(environment), dict(limits))
    return Begun(ask(server, "begin", *asked), server)


def command(*words: object, **options: Any) -> Ended:
    """As :func:`begin`, until its end."""
    return begin(*words, **options).end()


def ask(server: subprocess.Popen[str], *request: object) -> Any:
    """The answer of ``tests/command_server.py`` to a request."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def server(*modules: str) -> subprocess.Popen[str]:
    """A process that has imported modules and runs commands; it ends with this one, whose pipe it reads."""
    program = [sys.executable, "-m", "tests.command_server", *modules]
    return subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
