"""A run that is a job of a batch system: what the system's signals mean, and how its threads are set."""

from __future__ import annotations

import os
import signal

from rosa.grid import Job
from rosa.sweep import Result, attempt


def run_as_job(job: Job) -> Result:
    """Do one run in a process that a launcher (submitit, for SLURM) has started.

    A signal that asks to stop is given back, after the run's checkpoint, to the handler that the launcher had set.
    Where SLURM announces a time limit or a pre-emption, submitit's puts the job back into the queue; SIGTERM, which
    comes with ``scancel`` and ``scontrol requeue``, ends the process without a result: SLURM knows what comes next.

    Raises:
        SystemExit: asked to stop.
    """
    from rosa.training import InterruptedRun

    try:
        return attempt(job, int(os.environ.get("SLURM_CPUS_PER_TASK", "0")))
    except InterruptedRun as interruption:
        number = interruption.signal or signal.SIGTERM
        signal.raise_signal(number)
        raise SystemExit(128 + number) from interruption
