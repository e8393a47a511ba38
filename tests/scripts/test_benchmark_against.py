"""The benchmark of this code against an earlier commit's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from benchmarks import NAMES, BenchmarkError, against, library, suite
from benchmarks.timing import Spread

TRAIN = """
import pathlib, sys
import rosa
for argument in sys.argv[1:]:
    if argument.startswith("cache_dir="):
        pathlib.Path(argument.partition("=")[2]).mkdir(exist_ok=True)
print(rosa.VALUE)
"""


def commit(folder: Path, value: int) -> str:
    """A commit of a project whose library has a value; its name."""
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts/train.py").write_text(TRAIN)
    (folder / ".gitignore").write_text("__pycache__\n")
    (folder / "rosa.py").write_text(f"VALUE = {value}\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two commits, whose library has the value 1 and then 2, and a measurement that prints it."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    first = commit(folder, 1)
    commit(folder, 2)
    measurement = tmp_path / "measurement.py"
    measurement.write_text('import json\nimport rosa\nprint(json.dumps({"value": rosa.VALUE}))\n')
    monkeypatch.setattr(against, "ROOT", folder)
    monkeypatch.setattr(against, "COMMIT", first)
    monkeypatch.setattr(against, "LIBRARY", measurement)
    return folder


def test_each_version_runs_its_own_code(project: Path) -> None:
    workload: Any = None  # it needs none
    found = against.benchmark(workload, 2)
    values = {(line.case, line.quantity): line.value for line in found.measurements}
    assert values["value", "before"] == Spread(1.0, 1.0, 1.0, 3)
    assert values["value", "now"] == Spread(2.0, 2.0, 2.0, 3)
    assert values["value", "now relative to before"] == Spread(2.0, 2.0, 2.0, 3)
    counts = {case: value.count for (case, quantity), value in values.items() if isinstance(value, Spread)}
    assert counts[against.PRETRAINING] == 1
    assert counts[against.RUN] == 2
    assert [str(cells[0].text) for cells in found.table.rows][-1] == against.PRETRAINING
    state = subprocess.run(["git", "-C", str(project), "status", "--porcelain"], capture_output=True, check=True)
    assert not state.stdout


def test_a_commit_that_the_clone_lacks_is_an_obstacle(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not against.obstacle("cpu")
    monkeypatch.setattr(against, "COMMIT", "0" * 40)
    assert "no commit 0000000" in against.obstacle("cpu")
    assert "expected a clone with its whole history" in against.obstacle("cpu")


def test_without_git_there_is_an_obstacle_and_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = against.obstacle("cpu")
    assert found.startswith("against: git cannot be run (No such file or directory); expected it, and a clone")
    monkeypatch.setattr(suite, "OBSTACLES", {"against": against.obstacle})
    assert "against" not in suite._possible(["all"], "cpu", NAMES)[0]
    with pytest.raises(BenchmarkError, match="git cannot be run"):
        suite._possible(["against"], "cpu", NAMES)


def test_a_command_that_fails_is_told_with_its_end(project: Path) -> None:
    (project / "scripts/train.py").write_text("raise SystemExit('no such key')")
    workload: Any = None
    with pytest.raises(BenchmarkError, match=r"scripts/train.py .* failed:\nno such key"):
        against.benchmark(workload, 1)


def test_the_library_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes = {"WIDTH": 16, "TOKENS": 8, "LAYERS": 2, "RANK": 2, "PASSES": 1, "WARM_UP": 0, "RESAMPLES": 1}
    for name, small in {**sizes, "SHAPE": shape}.items():
        monkeypatch.setattr(library, name, small)
    seconds = library.measure(["fp32", "bf16"])
    assert len(seconds) == 5
    assert all(value > 0 for value in seconds.values())
