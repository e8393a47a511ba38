"""A sweep on a real SLURM, whose jobs are requeued, warned and cancelled in the middle; `make test-slurm` runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rosa import records
from rosa.sweep.jobs import Job
from rosa.sweep.local import run_job
from tests.conftest import ROOT
from tests.sweep.test_kills import RUN, folder_of, found, in_the_middle, jobs, wait_for

pytestmark = pytest.mark.slurm

GRID = ["method.rank=2", "method.every=1", "seed=0,1,2", "train.epochs=60"]
SLURM = [
    "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60",
    "hydra.launcher.array_parallelism=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cluster() -> None:
    if shutil.which("sinfo") is None or "SLURM_CONF" not in os.environ:
        pytest.skip("no SLURM of the tests' own is running: `make test-slurm` starts one")


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "scripts/train.py", "-m", *RUN, *overrides, f"results_dir={folder}"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def squeue() -> dict[str, str]:
    """The state of each task of the arrays in the queue."""
    done = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], check=True, capture_output=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def status(job: Job) -> str:
    path = folder_of(job) / records.RECORD
    return records.read(path)["status"] if path.exists() else "missing"


def test_requeued_warned_and_cancelled_jobs_end_as_a_local_sweep(tmp_path: Path) -> None:
    alone = [run_job(job, 1) for job in jobs(tmp_path / "alone", *GRID)]
    assert [result.status for result in alone] == ["done"] * 3

    shared = tmp_path / "shared"
    planned = jobs(shared, *GRID)
    sweep = start(shared, *GRID, *SLURM)
    try:
        # Two at a time: the first two tasks of the array.
        assert wait_for(lambda: in_the_middle(planned[0]) and in_the_middle(planned[1]), sweep)
        array = next(iter(squeue())).split("_")[0]
        subprocess.run(["scontrol", "requeue", f"{array}_0"], check=True)  # as another user's need of the node does
        subprocess.run(["scancel", "--signal=USR2", f"{array}_1"], check=True)  # as SLURM does before a time limit
        assert wait_for(lambda: status(planned[0]) == status(planned[1]) == "running", sweep)
        print("after requeue and warning:", squeue())
        # The third begins in their place, and is cancelled for good.
        assert wait_for(lambda: in_the_middle(planned[2]), sweep)
        subprocess.run(["scancel", f"{array}_2"], check=True)
        assert wait_for(lambda: [status(job) for job in planned] == ["done", "done", "running"], sweep)
        assert wait_for(lambda: not squeue(), sweep)
    finally:
        # Without accounting nobody tells it that a job was cancelled, and it waits.
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
    logs = "".join(path.read_text() for path in sorted((shared / "sweeps").rglob("*_log.err")))
    assert "this job is preempted" in logs, "submitit's own handler has heard of the warning, after the checkpoint"
    print(*[line for line in logs.splitlines() if "signal" in line.lower()], sep="\n")

    again = start(shared, *GRID, *SLURM)
    out, err = again.communicate()
    print(out)
    assert again.returncode == 0, err
    assert found(shared) == found(tmp_path / "alone")
    assert len(found(shared)) == 3


def test_a_run_of_two_tasks_is_one_run_and_survives_a_warning(tmp_path: Path) -> None:
    """Each task is one of the run's processes; the main one alone writes, and requeues the job."""
    one = ["method.rank=2", "method.every=1", "seed=0", "train.epochs=300"]
    assert run_job(jobs(tmp_path / "alone", *one)[0], 1).status == "done"
    shared = tmp_path / "shared"
    (job,) = jobs(shared, *one)
    sweep = start(shared, *one, *SLURM, "hydra.launcher.tasks_per_node=2")
    assert wait_for(lambda: in_the_middle(job), sweep)
    number = next(iter(squeue()))
    subprocess.run(["scancel", "--signal=USR2", number], check=True)
    out, err = sweep.communicate()
    print(out)
    assert sweep.returncode == 0, err
    logs = {path.name: path.read_text() for path in (shared / "sweeps").rglob("*_log.err")}
    assert len(logs) == 2
    assert "this job is preempted" in "".join(logs.values())
    record = records.read(folder_of(job) / records.RECORD)
    assert record["environment"]["processes"] == 2
    ((_, ours),) = found(shared).items()
    ((_, alone),) = found(tmp_path / "alone").items()
    assert ours["steps"] == alone["steps"]
    assert [entry["step"] for entry in ours["resamples"]] == [entry["step"] for entry in alone["resamples"]]
    for entry, expected in zip(ours["history"], alone["history"], strict=True):
        assert entry["validation"] == pytest.approx(expected["validation"], rel=1e-3)
