"""The mini scale needs no network: all commands run while connections to other machines are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rosa import records
from tests.conftest import ROOT

REFUSE = '''
"""Refuses every connection to another machine, and writes down who asked for one."""
import socket

def refused(self, address, *rest):
    if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
        with open({log!r}, "a") as log:
            log.write(f"connect {{address}}\\n")
        raise OSError("no network here")
    return connect(self, address, *rest)

def unknown(host, *rest, **options):
    if host not in (None, "", "127.0.0.1", "::1", "localhost", socket.gethostname()):
        with open({log!r}, "a") as log:
            log.write(f"look up {{host}}\\n")
        raise socket.gaierror("no network here")
    return getaddrinfo(host, *rest, **options)

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
socket.socket.connect = socket.socket.connect_ex = refused
socket.getaddrinfo = unknown
'''
"""A ``sitecustomize`` module, which every Python process loads, also those that the commands start."""
SMALL = [
    "data.train_size=64", "data.evaluation_size=32", "train.epochs=1", "train.batch_size=16", "train.device=cpu",
    "model.mini.layers=1", "model.mini.hidden=16", "model.mini.heads=2", "model.mini.intermediate=32",
    "model.mini.sentences=200", "model.mini.steps=20",
]  # fmt: skip


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "WANDB_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder / "refuse"), str(ROOT)])
    environment["HF_HOME"] = str(folder / "hf")
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "asked"
    (tmp_path / "refuse").mkdir()
    (tmp_path / "refuse" / "sitecustomize.py").write_text(REFUSE.format(log=str(path)))
    return path


def test_the_mini_job_asks_no_network(tmp_path: Path, log: Path) -> None:
    """Pretraining, a sweep over two tasks with W&B's files, tables, figures, report."""
    places = [f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"]
    sweep = command(
        tmp_path, "scripts/train.py", "-m", "model=mini-roberta", "task=cola,stsb", "method=rosa", *SMALL, *places
    )
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    found, problems = records.find(tmp_path / "results")
    assert ([record["status"] for record in found], problems) == (["done"] * 2, [])
    for script in ("make_tables.py", "make_figures.py", "make_report.py"):
        made = command(tmp_path, f"scripts/{script}", "--results", str(tmp_path / "results"))
        assert made.returncode == 0, made.stderr
    assert not log.exists(), log.read_text()


def test_a_connection_would_be_noticed(tmp_path: Path, log: Path) -> None:
    """Only a command that names the hub tries to reach it."""
    asked = command(tmp_path, "scripts/train.py", "model=roberta-base", "task=cola", "data=mini", "logger=none",
                    f"results_dir={tmp_path / 'results'}")  # fmt: skip
    assert asked.returncode == 2
    assert "cannot be reached" in asked.stderr
    assert "huggingface.co" in log.read_text()
