"""The check of a machine with a GPU, rehearsed without one: its report, and what a failed section leaves in it."""

from __future__ import annotations

import re
from pathlib import Path

import gpu_check

from tests.commands import command
from tests.conftest import ROOT


def test_a_rehearsal_reports_each_section_that_was_asked_for(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    ended = command("scripts/gpu_check.py", "--device", "cpu", "--report", report, "factorization")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    text = report.read_text()
    assert re.findall(r"`([\w-]+)`: (\w+)", text) == [("factorization", "ok")]
    assert re.search(r"\| 48 x 32 +\|( +[\d.]+ \([\d.–]+\) \|){4}", text)


def test_a_section_that_does_not_end_is_killed_and_its_log_is_quoted(tmp_path: Path) -> None:
    place = gpu_check.Place("cpu", tmp_path)
    outcome, text = gpu_check.perform("steps-gpt2-fp32", place, 0.5)
    assert outcome.startswith("killed at its time limit")
    assert text.startswith("```")
    assert gpu_check.perform("tests", place, 0) == ("left out: the time is up", "")


def test_it_is_refused_without_a_gpu(tmp_path: Path) -> None:
    ended = command(
        "scripts/gpu_check.py", environment={"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: PyTorch sees no CUDA device; --device cpu rehearses the check\n"
