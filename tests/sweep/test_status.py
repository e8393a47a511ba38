"""scripts/status.py on records of every state, with and without an experiment whose runs are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hydra_plugins.rosa_sweep import after_launch

from rosa import records
from rosa.config import Config
from rosa.run import folder as run_folder
from rosa.sweep import status
from rosa.sweep.jobs import Job
from rosa.sweep.status import asked_for, elsewhere, run_of, table, to_do
from rosa.utils import files
from tests.commands import Ended, command
from tests.conftest import Composer


def written(config: Config, **changes: Any) -> Path:
    """A record of a run in the folder where it belongs; the folder."""
    epoch = {"epoch": 1.0, "step": 10, "validation": {"matthews_correlation": 0.5}}
    selection = {"split": "validation", "metric": "matthews_correlation", "rule": "highest"}
    scores = {"metrics": {"best": epoch, "last": epoch, "selection": selection}}
    record = records.new(config, f"python scripts/train.py seed={config.seed}") | scores | changes
    folder = records.folder(config)
    records.write(folder, record)
    return folder


@pytest.fixture
def config(composed: Composer) -> Config:
    return composed("train.lr=1e-3", "train.precision=fp32")


def error(message: str) -> dict[str, str]:
    return {"type": "ValueError", "message": message, "traceback": ""}


@pytest.mark.quick
def test_each_state_is_told_and_what_is_left_to_do(config: Config) -> None:
    results = Path(config.results_dir)
    runs = [replace(config, seed=seed) for seed in range(5)]
    written(runs[0], status="done", finished="2026-01-02T03:04:05+00:00")
    written(runs[1], status="failed", finished="2026-01-01T00:00:00+00:00", error=error("no such thing\nand more"))
    held = written(runs[2])
    written(runs[3])
    (records.folder(runs[3]) / records.LOCK).touch()  # left behind by a process that was killed

    with FileLock(held / records.LOCK):
        found = list(asked_for([Job(run, f"run {run.seed}") for run in runs], results))
    assert [run.state for run in found] == ["done", "failed", "running", "stopped", "missing"]
    assert found[1].line == "ValueError: no such thing"
    assert [run_of(path, run).state for path, run in records.locate(results)[0].items()][2:] == ["stopped"] * 2
    assert to_do(found, "all") == [
        f"failed: {found[1].name}: ValueError: no such thing",
        "  again: python scripts/train.py seed=1",
        f"stopped: {found[3].name}",
        "  again: python scripts/train.py seed=3",
        "missing: 1 runs",
        "  all of them: all",
    ]
    header, line = table({"default": found})
    assert header.split() == ["experiment", "runs", "done", "failed", "running", "stopped", "missing", "last",
                              "activity", "(UTC)"]  # fmt: skip
    assert line.split()[:7] == ["default", "5", "1", "1", "1", "1", "1"]


@pytest.mark.quick
def test_a_glance_at_a_run_does_not_keep_it_from_starting(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(config)
    (folder / records.LOCK).touch()
    glancing, started = Event(), Event()
    held_by_glance = files.locked

    @contextmanager
    def slowly(*arguments: Any, **options: Any) -> Iterator[None]:
        with held_by_glance(*arguments, **options):
            glancing.set()
            started.wait(0.2)
            yield

    monkeypatch.setattr(status, "files", SimpleNamespace(locked=slowly))
    glance = Thread(target=status.in_progress, args=(folder,))
    glance.start()
    assert glancing.wait(60)
    with run_folder.locked(folder):
        started.set()
        assert status.in_progress(folder)
    glance.join()


@pytest.mark.quick
def test_runs_of_the_experiment_with_other_settings_are_told_where_some_are_missing(config: Config) -> None:
    results = Path(config.results_dir)
    jobs = [Job(replace(config, seed=seed), f"run {seed}") for seed in range(2)]
    shorter = replace(config, train=replace(config.train, epochs=1))
    written(jobs[0].config, status="done")
    assert elsewhere(jobs, list(asked_for(jobs, results)), results) == []
    for seed in (0, 1, 2):
        written(replace(shorter, seed=seed), status="done")
    written(replace(shorter, experiment_name="another"), status="done")
    assert elsewhere(jobs, list(asked_for(jobs, results)), results) == [
        "3 runs of default with other settings are there, such as: python scripts/train.py seed=0"
    ]
    written(jobs[1].config, status="failed", error=error("x"))
    assert elsewhere(jobs, list(asked_for(jobs, results)), results) == [], "nothing is missing"


def test_a_run_from_another_machine_is_found_whatever_precision_it_chose(config: Config) -> None:
    written(replace(config, train=replace(config.train, precision="bf16")), status="done")
    asked = replace(config, train=replace(config.train, precision="auto"))
    assert [run.state for run in asked_for([Job(asked, "x")], Path(config.results_dir))] == ["done"]
    fixed = replace(config, train=replace(config.train, precision="fp32"))
    assert [run.state for run in asked_for([Job(fixed, "x")], Path(config.results_dir))] == ["missing"]


def test_a_learning_rate_that_is_not_chosen_yet_is_the_reason(composed: Composer, tmp_path: Path) -> None:
    config = composed("train.lr=tuned", "train.tuning.experiment=grid")
    (run,) = asked_for([Job(config, "x")], tmp_path)
    assert run.state == "missing"
    assert run.line.startswith("RecordError: train.lr=tuned for model=tiny")
    assert "no runs to choose from" in run.line


@pytest.mark.quick
def test_runs_of_another_launcher_are_looked_for_where_each_was_to_write(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [replace(config, seed=seed, results_dir=str(tmp_path / name)) for name in "ab" for seed in (0, 1)]
    jobs = [Job(run, f"run {number}", number=number) for number, run in enumerate(runs)]
    for run in runs[:3]:
        written(run, status="done")
    assert not after_launch(jobs)
    assert capsys.readouterr().out.splitlines()[1].split()[1:4] == ["4", "3", "1"], "four runs: three done, one missing"
    written(runs[3], status="done")
    assert after_launch(jobs)


@pytest.mark.quick
def test_a_copied_folder_need_not_be_named_by_its_run(config: Config) -> None:
    folder = written(config)
    copy = folder.rename(folder.with_name("copy"))
    ((path, record),) = records.locate(Path(config.results_dir))[0].items()
    assert path.parent == copy
    assert run_of(path, record).state == "stopped"
    with FileLock(copy / records.LOCK):
        assert run_of(path, record).state == "running"


@pytest.mark.slow
def test_the_script(config: Config) -> None:
    results = Path(config.results_dir)
    written(config, status="failed", error=error("x"))
    broken = records.folder(replace(config, seed=7))
    broken.mkdir(parents=True)
    (broken / records.RECORD).write_text("{")

    def told(*arguments: str) -> Ended:
        return command("scripts/status.py", "--results", results, *arguments)

    done = told()
    assert done.returncode == 0
    assert "failed: run default/tiny/cola/rosa-" in done.stdout
    assert f"left out: {broken / records.RECORD}: not a readable record" in done.stderr
    asked = told("--experiment", "rank_frequency", "method.rank=1", "seed=0")
    assert asked.returncode == 0, asked.stderr
    assert "missing: 3 runs\n  all of them: python scripts/train.py -m experiment=rank_frequency" in asked.stdout
    assert told("--experiment", "rank_frequncy").stderr.startswith("error: experiment=rank_frequncy: no such")


@pytest.mark.slow
def test_committed_records_are_no_runs_of_this_folder(config: Config, tmp_path: Path) -> None:
    """In a fresh clone no run is done, although it has committed records."""
    results = Path(config.results_dir)
    folder = written(config, status="done")
    folder.rename((results / "records").mkdir() or results / "records" / "default")
    assert [run.state for run in asked_for([Job(config, "x")], results)] == ["missing"]
    done = command("scripts/status.py", "--results", results)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no runs under" in done.stderr
