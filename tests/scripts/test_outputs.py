"""Commands refuse an output that cannot be written before they look at anything else, which may take minutes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import script
from tests.conftest import ROOT

NO = "/proc/no"
"""Nobody can make a folder there."""
RUN = "no-such-run"


@pytest.mark.parametrize(
    ("name", "words", "refused"),
    [
        ("predict", [RUN, "--split", "test", "--out", f"{NO}/sets"], f"--out {NO}/sets"),
        ("predict", [RUN, "--split", "validation", "--out", f"{NO}/dev.csv"], f"--out {NO}"),
        ("predict", [RUN, "--split", "test", "--out", "sets", "--zip", f"{NO}/a.zip"], f"--zip {NO}"),
        ("export", [RUN, "--format", "peft", "--out", f"{NO}/adapter"], f"--out {NO}/adapter"),
        ("export", [RUN, "--format", "merged", "--out", __file__], f"--out {__file__}"),
        ("decode_e2e", [RUN, "--out", f"{NO}/texts.txt"], f"--out {NO}"),
        ("make_report", ["--out", f"{NO}/report.html"], f"--out {NO}"),
        ("make_tables", ["--out", NO], f"--out {NO}"),
        ("make_figures", ["--out", NO], f"--out {NO}"),
        ("make_samples", ["e2e", "--out", f"{NO}/page.md"], f"--out {NO}"),
        ("make_claims", ["--out", f"{NO}/page.md"], f"--out {NO}"),
        ("make_records_page", ["--out", f"{NO}/page.md"], f"--out {NO}"),
        ("make_models", ["--out", f"{NO}/page.md"], f"--out {NO}"),
        ("measure_peft", ["--out", f"{NO}/page.md"], f"--out {NO}"),
        ("score_e2e", ["references", "texts", "--json", f"{NO}/scores.json"], f"--json {NO}"),
        ("gpu_check", ["--report", f"{NO}/report.md"], f"--report {NO}"),
        ("benchmark", ["--results", NO], f"--results {NO}/tables"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(
    name: str,
    words: list[str],
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # no run, no records, no data
    assert script(monkeypatch, name, *words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {refused}: cannot be written: ")
    assert second == f"help: python scripts/{name}.py --help"
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_writes_a_file_is_tried() -> None:
    """A command with an option that names a file or folder to write is among the rows above."""
    (mark,) = test_an_output_that_cannot_be_written_is_refused_first.pytestmark
    tried = {(name, word) for name, words, _ in mark.args[1] for word in words if word.startswith("--")}
    options = re.compile(r"add_argument\(\s*\"(--(?:out|json|report|zip))\"")
    found = {
        (path.stem, option)
        for path in (ROOT / "scripts").glob("*.py")
        for option in options.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 10
    assert found <= tried


@pytest.mark.parametrize(
    ("name", "words"), [("make_report", []), ("predict", [RUN, "--split", "validation"]), ("decode_e2e", [RUN])]
)
def test_a_file_is_not_written_over_a_folder(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").mkdir()
    assert script(monkeypatch, name, *words, "--out", tmp_path / "a.csv") == 2
    assert f"error: --out {tmp_path / 'a.csv'}: is a folder, expected a file" in capsys.readouterr().err
