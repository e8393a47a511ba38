"""scripts/make_baselines.py: which records it takes, and what it does with those that have no baselines."""

from __future__ import annotations

from pathlib import Path

import make_baselines
import pytest

from rosa import records
from rosa.config import Config, FullConfig, RosaConfig
from rosa.errors import DataError, DependencyError, RosaError, ScoringError
from rosa.run import baselines
from tests.commands import script
from tests.report.synthetic_records import config, record


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs of this folder, and a committed one of the same experiment."""
    for task in ("rte", "cola"):
        made = record(config(task), 0.5)
        records.write(records.run_folder(tmp_path, made["identity"]), made)
    records.write(tmp_path / "records" / "glue" / "sst2", record(config("sst2"), 0.5))
    return tmp_path


@pytest.mark.parametrize("kind", [DataError, ScoringError, DependencyError])
def test_what_cannot_be_made_is_named_and_the_others_are_tried(
    kind: type[RosaError], results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> Path:
        raise kind("no such thing")

    monkeypatch.setattr(baselines, "make", refuse)
    assert script(monkeypatch, "make_baselines", "--results", results) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for task, line in zip(("cola", "rte"), sorted(lines), strict=True):
        assert line.startswith("left out: ")
        assert task in line
        assert line.endswith(": no such thing")


def test_a_record_of_another_version_stops_no_other(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows have baselines if another run on them can be read."""
    asked: list[tuple[str, str]] = []

    def made(config: Config, *_: object) -> Path:
        asked.append((config.task.name, config.method.name))
        raise DataError("no such file")

    monkeypatch.setattr(baselines, "make", made)
    for task, method in (("mrpc", FullConfig()), ("mrpc", RosaConfig()), ("qqp", FullConfig())):
        run = record(config(task, method), 0.5)
        if method.name == "full":
            run["config"]["data"]["new_option"] = 3
        records.write(records.run_folder(results, run["identity"]), run)
    assert script(monkeypatch, "make_baselines", "--results", results) == 1
    assert sorted(asked) == [("cola", "rosa"), ("mrpc", "rosa"), ("rte", "rosa")]
    lines = capsys.readouterr().err.splitlines()
    (unread,) = [line for line in lines if not line.endswith(": no such file")]
    assert len(lines) == 4
    assert "/qqp/full" in unread
    assert unread.endswith(": data.new_option: this version of rosa has no such key")


def test_committed_records_count_beside_own_runs_where_the_tables_show_them(results: Path) -> None:
    def tasks(found: dict[Path, list[records.Record]]) -> set[str]:
        return {run["identity"]["task"] for runs in found.values() for run in runs}

    assert tasks(make_baselines.wanted(results, [])) == {"rte", "cola"}
    assert tasks(make_baselines.wanted(results, ["glue"], "beside")) == {"rte", "cola", "sst2"}


def test_an_experiment_without_records_is_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "make_baselines", "--results", results, "--experiment", "clue") == 2
    assert "error: experiment 'clue' has no records; there are: glue" in capsys.readouterr().err
