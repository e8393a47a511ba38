"""scripts/predict.py refuses what it can tell from the records before it loads a model or writes a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa import records
from rosa.config import DataConfig
from rosa.run import reload
from tests.commands import script
from tests.report.synthetic_records import config, record


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(reload, "load", load)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, str]:
    """Finished runs by name, and one that is not finished."""
    made = {
        "cola": record(config("cola"), 0.5),
        "again": record(config("cola", seed=1), 0.5),
        "rte": record(config("rte", data=DataConfig("local", dir="glue")), 0.5),
        "reviews": record(config("reviews"), 0.5),
        "failed": record(config("sst2"), status="failed"),
    }
    for name, one in made.items():
        records.write(tmp_path / name, one)
    return {name: str(tmp_path / name) for name in made}


@pytest.mark.parametrize(
    ("names", "words", "said"),
    [
        (["rte", "cola", "again"], [], "out/CoLA.tsv: two of these runs are of task=cola; expected one run for each"),
        (["cola", "reviews"], [], "--out out: the leaderboard is of GLUE's tasks, and this is task=reviews"),
        (["cola", "failed"], [], "failed: the run's status is failed, expected done"),
        (["rte", "cola"], ["--data-dir", "here"], "is a run of data=mini; expected a run of data=local"),
        (["cola", "rte"], [], "out/RTE.tsv: exists; choose another place, or overwrite it (--overwrite)"),
        (["cola"], ["--zip", "old.zip"], "old.zip: exists; choose another place, or overwrite it (--overwrite)"),
        (["cola"], ["--out", "old.csv"], "old.csv: exists; choose another place, or overwrite it (--overwrite)"),
    ],
)
def test_nothing_is_written_before_all_runs_fit(
    names: list[str],
    words: list[str],
    said: str,
    runs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    for path in ("out/RTE.tsv", "old.zip", "old.csv"):
        Path(path).write_text("of another call")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    folders = [runs[name] for name in names]
    assert script(monkeypatch, "predict", *folders, "--split", "test", "--out", "out", *words) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_files_are_replaced_where_that_is_asked_for(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.csv").write_text("of another call")
    words = ("--split", "test", "--out", tmp_path / "old.csv", "--overwrite")
    with pytest.raises(AssertionError, match="a model was loaded"):
        script(monkeypatch, "predict", runs["cola"], *words)
