"""The committed tables are those that the committed records make, to the byte."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rosa import records

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_committed_tables_are_those_of_the_committed_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("records", "baselines", "paper"):
        (tmp_path / part).symlink_to(ROOT / "results" / part)
    monkeypatch.setattr(sys, "argv", ["make_tables.py", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts/make_tables.py"), run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (0, "")
    made = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    experiments = [path.name for path in (ROOT / "results/records").iterdir()]
    assert {f"{name}.{ending}" for name in experiments for ending in ("md", "csv", "tex")} <= set(made)
    committed = {name: (ROOT / "results/tables" / name).read_bytes() for name in made}
    assert [name for name in made if made[name] != committed[name]] == [], "make tables rebuilds them"


@pytest.mark.slow
def test_a_committed_run_on_other_rows_than_the_official_ones_says_so() -> None:
    """Scored on another dev set, it is marked in every table."""
    told = 0
    for path in (ROOT / "results" / "records").rglob(records.RECORD):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["data"].get("source") not in ("hub", "local"):
            continue
        official = OmegaConf.load(ROOT / f"conf/task/{run['identity']['task']}.yaml").rows
        splits, other = run["data"]["splits"], run["data"].get("other_rows", {})
        for name in official.keys() & splits.keys() - {"train"}:
            same = splits[name]["rows"] == official[name]
            assert same == (name not in other), records.describe(run)
        if other:
            told += 1
            assert any("the rows are not the official ones" in warning for warning in run["warnings"])
    assert told >= 4  # the runs on parts of SST-2's training set
