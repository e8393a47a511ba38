"""Runs scripts: in this process, or each in a process of its own that need not import PyTorch again."""

from __future__ import annotations

import functools
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

SERVER = """
import importlib, json, os, runpy, sys, tempfile

for module in sys.argv[1:]:
    importlib.import_module(module)
for asked in sys.stdin:
    command, folder, environment = json.loads(asked)
    out, err, loaded = (tempfile.TemporaryFile("w+") for _ in range(3))
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, sys.path[0] = command, os.path.dirname(os.path.abspath(command[0]))
        try:
            runpy.run_path(command[0], run_name="__main__")
        finally:
            print("torch" if "torch" in sys.modules else "", end="", file=loaded, flush=True)
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for stream in (out, err, loaded):
        stream.seek(0)
    print(json.dumps([status, out.read(), err.read(), bool(loaded.read())]), flush=True)
"""
"""Imports modules, then forks for each command that it reads, a line of JSON each, and answers with another: the
command's status, its two outputs, and whether it has loaded torch."""
LIGHT = ("hydra", "rosa.config.explain", "rosa.sweep.local")
"""What commands import that do not load PyTorch."""


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


def command(
    *words: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None, light: bool = False
) -> Ended:
    """Run ``python WORDS`` in a process of its own, which finds PyTorch and the run's modules imported.

    Args:
        words: the script's path, and its arguments.
        cwd: the folder to run it in.
        environment: all its variables, without those that are read when a library is imported; this process's if None.
        light: only what commands import that do not load PyTorch is imported, so that they can be seen not to.
    """
    server = _server(*LIGHT) if light else _server(*LIGHT, "rosa.run", "rosa.export")
    assert server.stdin is not None
    assert server.stdout is not None
    asked = [[str(word) for word in words], str(cwd), dict(os.environ if environment is None else environment)]
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    return Ended(*json.loads(server.stdout.readline()))


@functools.cache
def _server(*modules: str) -> subprocess.Popen[str]:
    """A process that runs commands; it ends with this one, whose pipe it reads."""
    program = [sys.executable, "-c", SERVER, *modules]
    return subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
