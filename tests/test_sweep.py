"""A sweep through the command line: every run, one line each, failures apart, nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rosa import records
from rosa.sweep import Job, Result, summarize
from tests.conftest import ROOT, Composer


def sweep(tiny_model: Path, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "scripts/train.py", "-m", "model=folder", "model.name=tiny", f"model.path={tiny_model}",
            "data.train_size=64", "data.evaluation_size=32", "train.epochs=1", "train.device=cpu", "logger=none",
            f"results_dir={tmp_path}", *overrides,
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_sweep_runs_all_keeps_failures_apart_and_does_nothing_twice(tiny_model: Path, tmp_path: Path) -> None:
    overrides = ("method=rosa,full", "seed=0,1", "task=cola")
    first = sweep(tiny_model, tmp_path, *overrides)
    assert first.returncode == 0, first.stderr
    assert "4 runs in" in first.stdout
    assert "4 done, 0 skipped, 0 failed" in first.stdout
    assert sum(line.startswith("done   ") for line in first.stdout.splitlines()) == 4, "one line a run"
    found, problems = records.find(tmp_path)
    assert not problems
    assert {(r["identity"]["method"], r["identity"]["seed"]) for r in found} == {
        (method, seed) for method in ("rosa", "full") for seed in (0, 1)
    }

    # The second seed of the first call is no reason to skip a third; one rank is too large for the model.
    second = sweep(tiny_model, tmp_path, "method=rosa", "seed=0,2", "method.rank=8,64", "task=cola")
    assert second.returncode == 1
    assert "1 done, 1 skipped, 2 failed" in second.stdout
    assert "failed: AdapterError: roberta.encoder.layer.0.attention.self.query (32 x 32): method.rank" in second.stdout
    assert "again: python scripts/train.py" in second.stdout

    third = sweep(tiny_model, tmp_path, *overrides)
    assert third.returncode == 0
    assert "nothing was done twice" in third.stdout


def test_sweep_without_a_hub_stops_before_its_first_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/train.py", "-m", "experiment=glue_paper", f"results_dir={tmp_path}", "task=cola,rte"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert "error: model.path=FacebookAI/roberta-base: not in the hub's cache" in done.stderr
    assert "model=folder model.path=DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_summary_counts_and_repeats(composed: Composer) -> None:
    job = Job(composed(), "python scripts/train.py x")
    text = summarize([Result(job, "failed", "OSError: full", 1.0), Result(job, "interrupted", "", 1.0)], 3.0)
    assert text.splitlines() == [
        "2 runs in 3 s: 0 done, 0 skipped, 1 failed, 1 interrupted",
        "failed: OSError: full",
        "  again: python scripts/train.py x",
        "interrupted: the same command goes on where this stopped",
    ]
