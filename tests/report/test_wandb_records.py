"""Tables from W&B equal those from files byte for byte; missing records are named."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rosa import records
from rosa.config import FullConfig, RosaConfig
from rosa.errors import ReportError
from rosa.records.tracking import wandb_id
from rosa.report.cli import records_folder
from rosa.report.study import Study
from rosa.report.tables import experiment
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.scores_csv import long_csv
from rosa.report.wandb_records import download
from tests.report.synthetic_records import config, record
from tests.report.test_tables import ROOT, every_task


class File:
    def __init__(self, path: Path) -> None:
        self.path = path

    def download(self, root: str, replace: bool) -> None:
        shutil.copyfile(self.path, Path(root, self.path.name))


class Run:
    """The part of a run in W&B's public API that is used."""

    state = "finished"

    def __init__(self, folder: Path) -> None:
        self.id = wandb_id(str(folder))
        self.name = folder.name
        self.folder = folder

    def files(self, names: list[str]) -> list[File]:
        return [File(self.folder / name) for name in names if (self.folder / name).is_file()]


class Api:
    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.asked: list[str] = []

    def runs(self, path: str) -> list[Run]:
        self.asked.append(path)
        return [Run(folder) for folder in self.folders]


def runs_folder(results: Path) -> list[Path]:
    """Records of finished, failed and losing runs, each in its run's folder."""
    found = [*every_task(2), *(record(config("cola", RosaConfig(), lr), lr) for lr in (1e-4, 1e-2))]
    found += [record(config("rte", FullConfig(), seed=7), status="failed")]
    folders = []
    for number, one in enumerate(found):
        folder = results / "runs" / "e" / "m" / "t" / f"method-{number}" / "seed0"
        records.write(folder, one)
        folders.append(folder)
    return folders


def all_tables(found: list[dict[str, Any]]) -> str:
    made = experiment.tables(Study(found, "glue"))
    return "".join([*map(markdown, made), *map(latex, made), long_csv(Study(found, "glue"))])


def test_the_tables_are_those_of_the_files(tmp_path):
    folders = runs_folder(tmp_path / "results")
    api = Api(list(reversed(folders)))
    assert download(tmp_path / "copy", "rosa", "lab", api) == []
    assert api.asked == ["lab/rosa"]
    here, problems = records.find(tmp_path / "results")
    there, more = records.find(tmp_path / "copy")
    assert problems == more == []
    assert len(there) == len(folders)
    assert all_tables(there) == all_tables(here)


def test_a_run_without_a_record_is_named_and_the_others_are_there(tmp_path):
    folders = runs_folder(tmp_path / "results")
    (folders[3] / records.RECORD).unlink()
    api = Api(folders)
    (line,) = download(tmp_path / "copy", "rosa", api=api)
    assert api.asked == ["rosa"]
    assert line == f"W&B run {wandb_id(str(folders[3]))} (seed0, finished): it has no record.json"
    assert len(records.find(tmp_path / "copy")[0]) == len(folders) - 1


def test_a_torn_record_is_left_out_by_name_as_on_the_disk(tmp_path):
    folders = runs_folder(tmp_path / "results")
    (folders[0] / records.RECORD).write_text('{"schema": 1')
    download(tmp_path / "copy", "rosa", api=Api(folders))
    found, (problem,) = records.find(tmp_path / "copy")
    assert len(found) == len(folders) - 1
    assert wandb_id(str(folders[0])) in str(problem)


def test_what_w_and_b_answers_is_said(tmp_path):
    class Refusing(Api):
        def runs(self, path: str) -> list[Run]:
            raise ConnectionError("permission denied")

    with pytest.raises(ReportError, match="W&B project lab/rosa: ConnectionError: permission denied"):
        download(tmp_path, "rosa", "lab", Refusing([]))
    with pytest.raises(ReportError, match=r"W&B project rosa: none of its 1 runs has a record\.json"):
        download(tmp_path, "rosa", api=Api([tmp_path]))


def test_the_command_reads_w_and_b_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    folders = runs_folder(tmp_path / "results")
    module = ModuleType("wandb")
    module.Api = lambda: Api([*folders, tmp_path])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    options = argparse.Namespace(source="wandb", project="rosa", entity="", results=tmp_path / "results")
    with records_folder(options) as folder:
        assert len(records.find(folder)[0]) == len(folders)
    assert not folder.exists()
    assert "left out: W&B run" in capsys.readouterr().err
    module.Api = lambda: Api([])  # type: ignore[attr-defined]
    with pytest.raises(ReportError, match="W&B project rosa: none of its 0 runs"), records_folder(options):
        pass


@pytest.mark.slow
def test_without_the_package_the_script_says_so(tmp_path):
    (tmp_path / "wandb.py").write_text("raise ImportError('not here')")
    command = [sys.executable, str(ROOT / "scripts" / "make_tables.py"), "--from", "wandb", "--project", "p"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: --from wandb: the package wandb is not installed (not here)"
