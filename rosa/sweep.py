"""Many runs on one machine: a pool of processes, a progress bar over the sweep, one line a run, a summary."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from rosa.config import TUNED, Config, ConfigError, from_hydra
from rosa.screen import headline


@dataclass(frozen=True)
class Job:
    """A run to do, and the shell command that does it alone."""

    config: Config
    command: str


@dataclass(frozen=True)
class Result:
    """What became of a job."""

    job: Job
    status: str
    """``done``, ``skipped``, ``failed``, ``busy`` or ``interrupted``."""
    line: str
    """The score, or the first line of the error."""
    seconds: float


def describe(config: Config) -> str:
    """A run in a few words."""
    rank = getattr(config.method, "rank", None)
    method = config.method.name + (f" r={rank}" if rank is not None else "")
    lr = config.train.lr if config.train.lr == TUNED else f"{config.train.lr:g}"
    return f"{config.task.name:5} {method:9} lr={lr} seed={config.seed}"


def run_job(job: Job, threads: int) -> Result:
    """Do one run in this process, and answer with its outcome instead of raising."""
    from rosa.run import BusyError, run
    from rosa.training import InterruptedRun

    start = time.perf_counter()
    config = job.config
    if threads and not config.train.threads:
        config = replace(config, train=replace(config.train, threads=threads))
    try:
        outcome = run(config, job.command, progress=False)
        status = "skipped" if outcome.skipped else "done"
        line = headline(outcome.record)
    except BusyError:
        status, line = "busy", "another process is doing it"
    except (InterruptedRun, KeyboardInterrupt):
        status, line = "interrupted", "asked to stop"
    except Exception as error:  # one failing run must not take the others with it
        status, line = "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return Result(job, status, line, time.perf_counter() - start)


def preflight(conf: Path, overrides: Sequence[str]) -> None:
    """Before a sweep is spelt out job by job: can the model and the data that all its runs share be had at all?

    Args:
        conf: the folder of the configuration groups.
        overrides: the command's arguments; those that are swept over are left out here, and looked at with their job.

    Raises:
        ModelError, DataError: the hub is needed and cannot be reached.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        parsed = OverridesParser.create().parse_overrides([word for word in overrides if not word.startswith("-")])
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            config = from_hydra(compose("config", overrides=fixed))
    except (ConfigError, HydraException, OmegaConfBaseException):
        return  # Hydra will refuse it in its own place, or a swept value makes it whole
    finally:
        GlobalHydra.instance().clear()
    if "hub" in (config.model.source, config.data.source):
        from rosa.run import prepare

        prepare([config])


def run_all(jobs: Sequence[Job], at_once: int) -> list[Result]:
    """Do all runs, several at a time, and print a line for each and a summary.

    Args:
        jobs: the runs; finished ones are skipped, interrupted ones go on.
        at_once: processes; 0 is one a CPU core, or one where a GPU is used.

    Returns:
        The outcomes, in the order in which runs ended.
    """
    import joblib
    import torch

    from rosa.run import prepare

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = torch.cuda.is_available() and any(job.config.train.device != "cpu" for job in jobs)
    processes = min(at_once or (1 if gpu else cores), len(jobs)) or 1
    threads = max(cores // processes, 1)
    start = time.perf_counter()
    prepare(job.config for job in jobs)
    results: list[Result] = []
    # joblib replaces a worker whose memory has grown; no run is lost by it, so it is no news.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
    # The first outcomes of a second call come in a burst of skips, so the bar counts runs and not time.
    with tqdm(total=len(jobs), unit="run", dynamic_ncols=True, smoothing=0.1) as bar:
        pool = joblib.Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        for result in pool(joblib.delayed(run_job)(job, threads) for job in jobs):
            results.append(result)
            if result.status != "skipped":
                bar.write(f"{result.status:11} {describe(result.job.config)}  {result.line}  ({result.seconds:.1f} s)")
            bar.update(1)
    print(summarize(results, time.perf_counter() - start), flush=True)
    return results


def summarize(results: Sequence[Result], seconds: float) -> str:
    """How many runs ended how, and for each failure its error and the command that repeats it."""
    counts = dict.fromkeys(("done", "skipped", "failed", "busy", "interrupted"), 0)
    for result in results:
        counts[result.status] += 1
    parts = [
        f"{count} {status}" for status, count in counts.items() if count or status in ("done", "skipped", "failed")
    ]
    lines = [f"{len(results)} runs in {seconds:.0f} s: {', '.join(parts)}"]
    if counts["skipped"] and counts["skipped"] == len(results):
        lines.append("every run was finished before; nothing was done twice (train.force=true starts over)")
    for result in results:
        if result.status == "failed":
            lines += [f"failed: {result.line}", f"  again: {result.job.command}"]
    if counts["interrupted"]:
        lines.append("interrupted: the same command goes on where this stopped")
    return "\n".join(lines)
