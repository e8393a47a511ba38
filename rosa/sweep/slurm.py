"""A run that is a job of a batch system: what the system's signals, tasks and cores mean for it."""

from __future__ import annotations

import os
import signal

from rosa.errors import InterruptedRun
from rosa.sweep.jobs import Job
from rosa.sweep.local import Result, attempt
from rosa.utils import distributed


def run_as_job(job: Job) -> Result:
    """Do one run in a process that a launcher (submitit, for SLURM) has started.

    A signal that asks to stop is given back, after the run's checkpoint, to the handler that the launcher had set.
    Where SLURM announces a time limit or a pre-emption, submitit's puts the job back into the queue; SIGTERM, which
    comes with ``scancel`` and ``scontrol requeue``, ends the process without a result: SLURM knows what comes next.

    Where the job has several tasks, they are the processes of one run. All but the first one only follow: none of their
    answers counts.

    Raises:
        SystemExit: asked to stop.
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
    """Tell each task of a job of several which of a run's processes it is, as ``torchrun`` would."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        # Each sees all GPUs that its machine has for the job, and takes the one of its own number.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
