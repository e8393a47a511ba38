"""The committed tables and figures are those that the committed records make, to the byte."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import make_figures
import pytest
from omegaconf import OmegaConf

from rosa import records
from rosa.report.figures import ablation, costs, curves, diagnostics, forest, rank_frequency, tradeoff
from rosa.report.study import Study

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_committed_tables_are_those_of_the_committed_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for part in ("records", "baselines", "paper"):
        (results / part).symlink_to(ROOT / "results" / part)
    monkeypatch.chdir(tmp_path)  # the tables print the commands without --results
    monkeypatch.setattr(sys, "argv", ["make_tables.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts/make_tables.py"), run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (0, "")
    made = {path.name: path.read_bytes() for path in (results / "tables").iterdir()}
    experiments = [path.name for path in (ROOT / "results/records").iterdir()]
    assert {f"{name}.{ending}" for name in experiments for ending in ("md", "csv", "tex")} <= set(made)
    committed = {name: (ROOT / "results/tables" / name).read_bytes() for name in made}
    assert [name for name in made if made[name] != committed[name]] == [], "make tables rebuilds them"
    others = {path.name for path in (ROOT / "results/tables").iterdir()} - set(made) - ignored()
    assert [name for name in others if not re.match(r"(benchmark(_\w+)?|costs|peft(_\w+)?)\.", name)] == []


def ignored() -> set[str]:
    """The files of results/tables that this checkout has and no commit will."""
    listed = ["git", "ls-files", "--others", "results/tables"]
    return {Path(name).name for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines()}


@pytest.mark.slow
def test_the_committed_figures_show_the_numbers_of_the_committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ablation, costs, curves, diagnostics, forest, rank_frequency, tradeoff):
        monkeypatch.setattr(module, "_draw", lambda *arguments: None)
    folder = ROOT / "results" / "figures"
    tracked = subprocess.check_output(["git", "ls-files", str(folder)], cwd=ROOT, text=True).splitlines()
    paths = [ROOT / name for name in tracked if (ROOT / name).parent != folder / "costs"]  # scripts/benchmark.py's
    committed = {
        str(path.relative_to(folder).with_suffix("")): path.read_bytes() for path in paths if path.suffix == ".csv"
    }
    assert {str(path.relative_to(folder).with_suffix("")) for path in paths if path.suffix == ".svg"} == set(committed)
    made = {}
    for experiment in {name.partition("/")[0] for name in committed}:
        study = Study(records.find(ROOT / "results", experiment, "alone")[0], experiment)
        for comparison, kind in product(study.models.values(), make_figures.FIGURES):
            for pictures, _ in make_figures.pictures(comparison, kind, ["headline", "loss"]):
                made |= {picture.name: picture.table() for picture in pictures}
    assert [name for name in committed if name not in made] == [], "the records do not give them"
    assert [name for name in committed if made[name] != committed[name]] == [], "make figures rebuilds them"


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
