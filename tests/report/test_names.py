"""Names from records cannot lead to files outside the folder of tables and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rosa.errors import OutputError
from rosa.report import formatting
from rosa.report.figures.style import Picture
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a/.."])
def test_a_picture_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="outside"):
        Picture(name, ("a",), ({"a": 1},), Figure()).write(tmp_path / "figures")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_in_a_folder_of_its_own_is_written(tmp_path: Path) -> None:
    Picture("glue/cola", ("a",), ({"a": 1},), Figure()).write(tmp_path)
    assert (tmp_path / "glue" / "cola.csv").read_text() == "a\n1\n"


def test_names_of_tasks_are_looked_up_in_one_place() -> None:
    """A name that no table has is shown as it is, everywhere."""
    users = {path.name for path in (ROOT / "rosa").rglob("*.py") if "TASK_NAMES" in path.read_text(encoding="utf-8")}
    assert users == {"formatting.py"}
    assert [formatting.task_name(task) for task in ("stsb", "my_task")] == ["STS-B", "my_task"]
