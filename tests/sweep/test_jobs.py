"""A run of a sweep: its label and its command; options told from overrides; what was finished before."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa import records
from rosa.config import register
from rosa.run.device import resolve
from rosa.sweep.grid import expand
from rosa.sweep.jobs import Job, labelled, request
from rosa.sweep.local import environment, without_finished
from tests.commands import command
from tests.conftest import ROOT, Composer


def planned(*words: str) -> list[Job]:
    register()
    return [job for job, _ in expand(ROOT / "conf", request(words))]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("seed=0,1",), ["seed=0", "seed=1"]),
        (("method=rosa,lora", "seed=0"), ["rosa", "lora"]),
        (("task=cola,stsb", "train.lr=1e-3,2e-3"), [
            "cola lr=0.001", "cola lr=0.002", "stsb lr=0.001", "stsb lr=0.002"]),
        (("method.rank=2,4", "data.seed=0,1", "seed=0"), [
            "seed=0 rank=2", "seed=1 rank=2", "seed=0 rank=4", "seed=1 rank=4"]),
        (("model=mini-roberta",), ["cola rosa seed=0"]),
    ],
)  # fmt: skip
def test_a_line_names_what_varies_and_nothing_else(words: tuple[str, ...], labels: list[str]) -> None:
    assert sorted(job.label for job in labelled(planned(*words))) == sorted(labels)


def test_what_a_search_varies_is_in_each_line() -> None:
    """Of a search only some trials are there when the first line is printed."""
    (job,) = labelled(planned("seed=0", "method=lora"), {"train.lr", "method"})
    assert job.label == "lora lr=0.001"


@pytest.mark.parametrize(
    ("words", "options", "overrides"),
    [
        (["seed=0", "-m", "task=cola"], ["-m"], ["seed=0", "task=cola"]),
        (["--config-dir", "x=y", "seed=0", "-cn", "config"], ["--config-dir", "x=y", "-cn", "config"], ["seed=0"]),
        (["--info", "defaults", "seed=0", "seed=0"], ["--info", "defaults"], ["seed=0", "seed=0"]),
        (["-c", "job", "-p", "train", "--resolve"], ["-c", "job", "-p", "train", "--resolve"], []),
        (["-sc", "query=bash"], ["-sc"], ["query=bash"]),
    ],
)
def test_options_and_overrides_come_in_any_order(words: list[str], options: list[str], overrides: list[str]) -> None:
    asked = request(words)
    assert (list(asked.options), list(asked.overrides)) == (options, overrides)


def test_a_runs_environment_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("THERE", "before")
    with environment({"THERE": "now", "NEW": "1"}):
        assert (os.environ["THERE"], os.environ["NEW"]) == ("now", "1")
    assert os.environ["THERE"] == "before"
    assert "NEW" not in os.environ


@pytest.mark.slow
def test_a_finished_run_is_skipped_without_pytorch(composed: Composer, tmp_path: Path) -> None:
    config = composed("train.epochs=1")
    words = [
        "model=folder", "model.name=tiny", f"model.path={config.model.path}", "data.train_size=64", "logger=none",
        "data.evaluation_size=32", "train.epochs=1", "train.device=cpu", "task=cola", f"results_dir={tmp_path}",
    ]  # fmt: skip
    assert command("scripts/train.py", *words).returncode == 0
    for more in ([], ["-m"]):
        done = command("scripts/train.py", *more, *words, light=True)
        assert done.returncode == 0, done.stderr
        assert "finished" in done.stdout
        assert not done.torch


def test_the_command_that_a_corrupt_record_is_answered_with_does_the_run_over(composed: Composer) -> None:
    config = composed()
    folder = records.folder(resolve(config)[0])
    folder.mkdir(parents=True)
    (folder / records.RECORD).write_text("{")
    left, (result,) = without_finished([Job(config, "python scripts/train.py")])
    assert (left, result.status) == ([], "failed")
    assert "train.force=true starts the run over" in result.line
    assert result.again == "python scripts/train.py train.force=true"
    forced = composed("train.force=true")
    assert without_finished([Job(forced, "x")]) == ([Job(forced, "x")], [])
