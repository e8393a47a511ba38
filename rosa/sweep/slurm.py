"""Do a run as a job of a batch system: its signals, tasks and cores."""

from __future__ import annotations

import os
import signal

from rosa.errors import InterruptedRun
from rosa.sweep.jobs import Job
from rosa.sweep.local import Result, attempt
from rosa.utils import distributed


def run_as_job(job: Job) -> Result:
    """Do one run in a process that a launcher (submitit, for SLURM) has started.

    After the run's checkpoint, a signal that asks to stop is passed to the handler that the launcher had set. When
    SLURM announces a time limit or a pre-emption, submitit's handler requeues the job. SIGTERM, sent by ``scancel`` and
    ``scontrol requeue``, ends the process without a result; SLURM then cancels or requeues the job itself.

    The tasks of a job are the processes of one run; only the main process's result counts.

    Raises:
        SystemExit: stopped by a signal.
    """

    _join_tasks()
    try:
        return attempt(job, int(os.environ.get("SLURM_CPUS_PER_TASK", "0")))
    except InterruptedRun as interruption:
        if not distributed.is_main():
            return Result(job, "interrupted", "asked to stop", 0.0)
        number = interruption.signal or signal.SIGTERM
        signal.raise_signal(number)
        raise SystemExit(128 + number) from interruption


def _join_tasks() -> None:
    """Set the environment variables of ``torchrun`` (rank, world size) in each task of a job with several tasks."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        # Each task sees all of the job's GPUs on its machine, and uses the one of its local rank.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
