"""scripts/make_baselines.py: which records it takes, and what it does with those that have no baselines."""

from __future__ import annotations

from pathlib import Path

import make_baselines
import pytest

from rosa import records
from rosa.errors import DataError, RosaError, ScoringError
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


@pytest.mark.parametrize("kind", [DataError, ScoringError])
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


def test_committed_records_count_beside_own_runs_where_the_tables_show_them(results: Path) -> None:
    def tasks(found: dict[Path, records.Record]) -> set[str]:
        return {run["identity"]["task"] for run in found.values()}

    assert tasks(make_baselines.wanted(results, [])) == {"rte", "cola"}
    assert tasks(make_baselines.wanted(results, ["glue"], "beside")) == {"rte", "cola", "sst2"}


def test_an_experiment_without_records_is_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "make_baselines", "--results", results, "--experiment", "clue") == 2
    assert "error: experiment 'clue' has no records; there are: glue" in capsys.readouterr().err
