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


LEAVES_A_RUN = """
import subprocess, sys
from pathlib import Path
import gpu_check

def section(place):
    Path(sys.argv[1]).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    raise gpu_check.CheckError("it failed")

gpu_check.SECTIONS["resume"] = gpu_check.Section("A section", section, 90)
if __name__ == "__main__":
    print(gpu_check.perform("resume", gpu_check.Place("cpu", Path(sys.argv[1]).parent), 90)[0])
"""


def test_a_section_that_fails_leaves_no_run_on_the_gpu(tmp_path: Path) -> None:
    script, written = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(LEAVES_A_RUN)
    ended = command(script, written, environment={"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"})
    assert ended.stdout.startswith("failed"), ended.stdout + ended.stderr
    left = Path("/proc", written.read_text(), "stat")  # of a process that nobody waits for, "Z" stays
    assert not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z"


def test_it_is_refused_without_a_gpu(tmp_path: Path) -> None:
    ended = command(
        "scripts/gpu_check.py", environment={"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: PyTorch sees no CUDA device; --device cpu rehearses the check\n"
