"""Sweeps that are killed, run at the same time, or have dying runs: the records at the end."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rosa import records
from rosa.config import register
from rosa.run.device import resolve
from rosa.sweep.grid import expand
from rosa.sweep.jobs import Job, request
from rosa.sweep.local import run_job
from tests.commands import Begun, begin
from tests.conftest import ROOT
from tests.run.test_resume import results

KILLS = int(os.environ.get("ROSA_KILLS", "2"))
"""Number of kills of the sweep; the environment can ask for more."""
RUN = [
    "model=linear", "model.perceptron.widths=[8,4]", "task=regression", "data=teacher", "data.teacher.rank=2",
    "data.train_size=64", "data.evaluation_size=32", "train.epochs=2", "train.batch_size=16", "train.device=cpu",
    "train.threads=1", "train.keep=none", "logger=none", "method.targets=['*']",
]  # fmt: skip
GRID = ["method.rank=1,2", "method.every=0,1,2", "seed=0,1,2,3"]
SECONDS = 300
"""The longest that a test waits for something to begin, on a machine that has other things to do."""


def start(folder: Path, *overrides: str, **limits: int) -> Begun:
    """A sweep in a process group of its own; ``limits`` as in ``begin``."""
    return begin("scripts/train.py", "-m", *RUN, *overrides, f"results_dir={folder}", limits=limits)


def jobs(folder: Path, *overrides: str) -> list[Job]:
    register()
    return [job for job, _ in expand(ROOT / "conf", request([*RUN, *overrides, f"results_dir={folder}"]))]


def folder_of(job: Job) -> Path:
    return records.folder(resolve(job.config)[0])


def found(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The results that must not depend on interruptions, by identity."""
    whole, problems = records.find(folder)
    assert problems == []
    assert {record["status"] for record in whole} == {"done"}
    return {records.order_key(record): results(record) for record in whole}


def records_in(folder: Path) -> int:
    """How many runs have a record; folders below theirs come and go."""
    return len(list(folder.glob(f"runs/*/*/*/*/*/{records.RECORD}")))


def in_the_middle(job: Job) -> bool:
    """Whether a run has a checkpoint to go on from."""
    try:
        return any(folder_of(job).glob("checkpoints/checkpoint-*/manifest.json"))
    except FileNotFoundError:
        return False  # it went while it was looked at


def wait_for(holds: Any, process: Begun | subprocess.Popen[str]) -> bool:
    """Whether a condition became true before the process ended."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None:
        if holds():
            return True
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return False


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_ends_as_one_left_alone(tmp_path: Path) -> None:
    alone = [run_job(job, 1) for job in jobs(tmp_path / "alone", *GRID)]
    assert [result.status for result in alone] == ["done"] * 24
    killed = tmp_path / "killed"
    chance = random.Random(0)
    for _ in range(KILLS):
        before = records_in(killed)
        sweep = start(killed, *GRID, "train.save_steps=1")
        if wait_for(lambda before=before: records_in(killed) > min(before, 23), sweep):
            time.sleep(chance.uniform(0, 1))
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.end()
    # Should no kill have come in the middle of a write, here is what one leaves behind.
    (next(killed.glob("runs/*/*/*/*/*")) / f".{records.RECORD}.1-dead.tmp").write_text("{")
    last = start(killed, *GRID, "train.save_steps=1").end()
    assert last.returncode == 0, last.stderr
    assert "0 failed" in last.stdout
    assert found(killed) == found(tmp_path / "alone")
    assert len(found(killed)) == 24
    left = {path.name for path in killed.glob("runs/*/*/*/*/*/*")}
    assert left - {records.LOCK} == {records.RECORD}, "nothing half-written is left"


def summary_of(out: str) -> dict[str, int]:
    """The counts in ``6 runs in 00:03: 2 done, 4 elsewhere``."""
    (line,) = re.findall(r"runs in \S+: (.*)", out)
    return {status: int(count) for count, status in (part.split(" ", 1) for part in line.split(", "))}


@pytest.mark.slow
def test_two_sweeps_on_one_folder_do_each_run_once(tmp_path: Path) -> None:
    grid = ["method.rank=1,2", "seed=0,1,2"]
    both = [start(tmp_path, *grid) for _ in range(2)]
    ends = [sweep.end() for sweep in both]
    assert [end.returncode for end in ends] == [0, 0], ends
    counts = [summary_of(end.stdout) for end in ends]
    assert sum(count["done"] for count in counts) == 6
    for count in counts:
        assert sum(count.values()) == 6, "each sweep answers for all of its runs"
    assert len(found(tmp_path)) == 6


@pytest.mark.slow
def test_failures_of_all_kinds_are_named_and_harm_no_other_run(tmp_path: Path) -> None:
    """A process killed by the system, a corrupt record, a folder that cannot be written, a full disk, no memory."""
    grid = ["method.rank=2", "seed=0,1,2,3,4", "train.epochs=80", "jobs=1"]  # long enough to be killed in the middle
    killed, corrupt, unwritable, *_ = planned = jobs(tmp_path, *grid)
    folder_of(corrupt).mkdir(parents=True)
    (folder_of(corrupt) / records.RECORD).write_text('{"schema": 1, "sta')
    folder_of(unwritable).parent.mkdir(parents=True, exist_ok=True)
    folder_of(unwritable).symlink_to("/dev/null")  # no folder can be made here, whoever asks
    # The weights of a wider map do not fit in a file of this size, its record would; those of a third not in memory.
    limit = 256 * 1024
    wide = ["model.perceptron.widths=[8,16384],[8,100000000000000]", "seed=9"]

    sweep = start(tmp_path, *grid)
    try:
        assert wait_for((folder_of(killed) / records.RECORD).exists, sweep)
        kill_the_runs_of(sweep)
    except BaseException:
        os.killpg(sweep.pid, signal.SIGKILL)
        raise
    done = sweep.end()
    assert done.returncode == 1, done.stderr
    assert "2 done, 0 skipped, 3 failed" in done.stdout
    said = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(said) == 3
    assert said[0] == "failed: SIGKILL: killed by the system, probably out of memory (or by somebody)"
    assert f"{folder_of(corrupt) / records.RECORD}: not a readable record" in said[1]
    assert f"{folder_of(unwritable)}: cannot write in the run's folder" in said[2]
    assert f"again: {killed.command}" in done.stdout
    record = records.read(folder_of(killed) / records.RECORD)
    assert (record["status"], record["error"]["type"]) == ("failed", "KilledProcess")
    assert all(records.read(folder_of(job) / records.RECORD)["status"] == "done" for job in planned[3:])

    full = start(tmp_path, *wide, RLIMIT_FSIZE=limit).end()
    assert full.returncode == 1, full.stderr
    assert "0 done, 0 skipped, 2 failed" in full.stdout
    assert "too large" in full.stdout
    assert "can't allocate memory: you tried to allocate 3200000000000000 bytes" in full.stdout


def kill_the_runs_of(sweep: Begun) -> None:
    """Send SIGKILL, as the system does where memory is short, to the process that does the run."""
    # Not their children: a run asks git for the commit.
    runs = [run for server in psutil.Process(sweep.pid).children() for run in server.children()]
    assert len(runs) == 1, "one run at a time, forked from a server"
    runs[0].kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "timeout"])
def test_a_signal_to_the_group_writes_checkpoints_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    grid = ["method.rank=2", "seed=0,1,2", "jobs=1", "train.epochs=200"]
    sweep = start(tmp_path, *grid)
    first, *_ = jobs(tmp_path, *grid)
    assert wait_for(lambda: in_the_middle(first), sweep)
    processes = psutil.Process(sweep.pid).children(recursive=True)
    os.killpg(sweep.pid, number)  # as a terminal or ``timeout`` does, to every process
    done = sweep.end()
    assert psutil.wait_procs(processes, timeout=10)[1] == [], "no run goes on by itself"
    assert done.returncode == 1, done.stderr
    assert "0 done, 0 skipped, 0 failed, 1 interrupted, 2 not started" in done.stdout
    assert "stopped early: run the same command again to resume" in done.stdout
    assert in_the_middle(first)
    (record,), problems = records.find(tmp_path)
    assert (record["status"], problems) == ("running", [])
