"""Check and measure everything on a machine with a GPU, in at most 10 minutes; the report is Markdown for an issue.

python scripts/gpu_check.py [SECTION ...] [--report results/gpu_check.md] [--device cuda] [--seconds 600]

Each section runs in a process of its own with a time limit and is added to the report when it ends, so a crash, a hang
or a cut-off affects only its own section. ``--device cpu`` rehearses all sections on models of a few thousand
parameters.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import from_clone  # noqa: F401  # finds rosa
import torch
from benchmarks.findings import facts_table, row
from torch import distributed

from rosa import records
from rosa.errors import RosaError
from rosa.records import Record
from rosa.records.environment import environment
from rosa.report.tables.markdown import markdown
from rosa.report.tables.table import Table
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.formatting import MIB

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "bf16")
TAIL = 40
"""Number of last lines of a log that the report quotes."""
CLOSE = 1e-2
"""Largest accepted relative difference between the losses of two runs: a GPU's order of additions varies."""


class CheckError(RosaError, RuntimeError):
    """A check failed on this machine."""


@dataclass(frozen=True)
class Place:
    """The device and folder of a section."""

    device: str
    """``cuda``, or ``cpu`` for a rehearsal on tiny shapes."""
    folder: Path
    """The folder for runs and logs."""

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal on small models."""
        return self.device == "cpu"

    def log(self, section: str) -> Path:
        """The log file of a section: its commands' output, and its own error."""
        return self.folder / f"{section}.log"

    @property
    def processes(self) -> int:
        """The number of processes of a run under torchrun: one for each GPU."""
        return 2 if self.small else torch.cuda.device_count()


# --- tests and runs --------------------------------------------------------------------------------------------------


def tests(place: Place) -> None:
    """The tests that need a GPU."""
    marks = "not gpu" if place.small else "gpu"
    command("-m", "pytest", "tests/test_gpu.py", "-m", marks, "-n", "4", "--durations=5", "-p", "no:cacheprovider")
    print(quoted(place.log("tests")))


def runs(place: Place) -> None:
    """A short run of each method in each precision, several at a time on the GPU."""
    results = place.folder / "runs"
    methods = "method=rosa_each_epoch,lora,ia3,full"
    try:
        train(place, results, methods, f"train.precision={','.join(PRECISIONS)}", "jobs=4", "-m")
    finally:
        found, _ = records.find(results)
        rows = [_run_row(record) for record in sorted(found, key=records.order_key)]
        header = ("method", "precision", "status", "first loss", "last loss", "score", "step, ms", "peak, MiB")
        print(markdown(Table("runs", "Runs of the mini CoLA", header, tuple(rows), ())))
    if len(found) < 8 or any(record["status"] != "done" for record in found):
        raise CheckError("not every run is done")


def _run_row(record: Record) -> tuple:
    config = record["config"]
    cells = [config["method"]["name"], config["train"]["precision"], record["status"]]
    if record["status"] != "done":
        return row(*cells, *["–"] * 5)
    first, last = (entry["loss"] for entry in (record["training"][0], record["training"][-1]))
    costs_of_run = record["costs"]
    peak = costs_of_run["device_bytes"] or costs_of_run["host_bytes"] or math.nan
    step = 1000 * (costs_of_run["seconds_per_step_median"] or math.nan)
    return row(
        *cells, f"{first:.4f}", f"{last:.4f}", f"{records.score(record):.3f}", f"{step:.1f}", f"{peak / MIB:.0f}"
    )


def resume(place: Place) -> None:
    """A run that is killed after its first resample and asked for again ends as one that was left alone."""
    overrides = ("method=rosa_each_epoch", "train.save_steps=4", "train.precision=fp32")
    whole = subprocess.Popen(train_command(place, place.folder / "whole", *overrides), cwd=ROOT)
    killed = place.folder / "killed"
    process = subprocess.Popen(train_command(place, killed, *overrides), cwd=ROOT)
    while process.poll() is None and _newest_step(killed) < 40:
        time.sleep(0.005)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        raise CheckError(f"the run ended with {process.returncode} before it could be killed")
    at = _newest_step(killed)
    train(place, killed, *overrides)
    if whole.wait():
        raise CheckError(f"the run that was left alone ended with {whole.returncode}")
    apart = _apart(_only(killed), _only(place.folder / "whole"))
    print(f"Killed after the checkpoint of update {at}; the losses of the two runs differ by {apart:.1e} at most.")
    if apart > CLOSE:
        raise CheckError(f"expected at most {CLOSE}")


def _newest_step(results: Path) -> int:
    # Not rglob, which would look into checkpoints while they are being removed.
    found = results.glob("runs/*/*/*/*/seed*/checkpoints/checkpoint-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def processes(place: Place) -> None:
    """One run on all GPUs, a process each, beside that of one process; and NCCL's collectives with a single one."""
    if place.device == "cuda":
        _speak_nccl(place.folder / "nccl")
    count = place.processes
    overrides = ("method=rosa_each_epoch", "train.precision=fp32", f"train.batch_size={16 * count}")
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    command(*launcher, *train_command(place, place.folder / "several", *overrides)[1:])
    train(place, place.folder / "one", *overrides)
    several = _only(place.folder / "several")
    apart = _apart(several, _only(place.folder / "one"))
    print(f"{several['environment']['processes']} processes; losses as of one process but for {apart:.1e}", end=" ")
    print("(each process draws dropout of its own)." if count > 1 else "at most.")
    if apart > (CLOSE if count == 1 else 0.2):
        raise CheckError("the losses are too far apart")


def _speak_nccl(meeting: Path) -> None:
    distributed.init_process_group("nccl", init_method=f"file://{meeting}", rank=0, world_size=1)
    values = torch.arange(5.0, device="cuda")
    distributed.all_reduce(values)
    distributed.broadcast(values, src=0)
    gathered: list[Any] = [None]
    distributed.all_gather_object(gathered, "here")
    if values.tolist() != [0, 1, 2, 3, 4] or gathered != ["here"]:
        raise CheckError(f"NCCL gave {values.tolist()} and {gathered}")
    distributed.destroy_process_group()
    print(f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))} speaks.\n")


def _only(results: Path) -> Record:
    """The only record under a folder; its run must be finished."""
    (record,), _ = records.find(results)
    if record["status"] != "done":
        raise CheckError(f"the run is {record['status']}")
    return record


def _apart(one: Record, other: Record) -> float:
    """The largest relative difference between two runs' training losses."""
    losses = ([math.nan if line["loss"] is None else line["loss"] for line in run["training"]] for run in (one, other))
    return max(abs(a - b) / b for a, b in zip(*losses, strict=True))


def train_command(place: Place, results: Path, *overrides: str) -> list[str]:
    """The command of a short run of the mini CoLA on the project's own model, briefly pretrained."""
    size = ("data.train_size=256", "data.evaluation_size=64", "train.epochs=4", "train.batch_size=16")
    model = ("model=mini-roberta", "model.mini.steps=50", "model.mini.sentences=2000")
    places = (f"train.device={place.device}", f"results_dir={results}", f"cache_dir={place.folder / 'cache'}")
    own = (*model, *size, *places, "logger=none", "train.log_steps=8")
    # The last value of a key counts.
    return [sys.executable, "scripts/train.py", *own, *overrides]


def train(place: Place, results: Path, *overrides: str) -> None:
    """Do a short run, or a sweep of short runs."""
    command(*train_command(place, results, *overrides)[1:])


def command(*arguments: str) -> None:
    """Run Python with these arguments from the project's root.

    Raises:
        CheckError: the exit status was not 0.
    """
    status = subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode
    if status:
        raise CheckError(f"python {' '.join(arguments[:3])} ended with {status}")


def quoted(log: Path) -> str:
    """The last lines of a log, as Markdown."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(["```", *lines[-TAIL:], "```\n"])


# --- the report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A section of the report, and its time limit."""

    heading: str
    work: Callable[[Place], None]
    """Prints Markdown."""
    limit: float
    """Time limit in seconds."""


def _measured(name: str, *arguments: str) -> Callable[[Place], None]:
    """The work of a section that is a function of :mod:`benchmarks.on_gpu`."""

    def measure(place: Place) -> None:
        from benchmarks import on_gpu  # which imports transformers and peft: the other sections need not wait for them

        getattr(on_gpu, name)(*arguments, place.device)

    return measure


def _steps(model: str, shape: str, precision: str) -> Section:
    heading = f"Training steps of {shape}'s shape in {precision}"
    return Section(heading, _measured("steps", model, precision), 75)


SECTIONS = {
    "tests": Section("The tests that need a GPU", tests, 150),
    "runs": Section("A short run of each method in each precision, several at a time on the GPU", runs, 120),
    "resume": Section(
        "A run that is killed after its first resample and asked for again ends as one that was left alone", resume, 100
    ),
    "processes": Section(
        "One run on all GPUs, a process each, beside that of one process; and NCCL's collectives with a single one",
        processes,
        100,
    ),
    "steps-roberta-fp32": _steps("roberta", "RoBERTa-base", "fp32"),
    "steps-roberta-bf16": _steps("roberta", "RoBERTa-base", "bf16"),
    "steps-gpt2-fp32": _steps("gpt2", "GPT-2", "fp32"),
    "steps-gpt2-bf16": _steps("gpt2", "GPT-2", "bf16"),
    "factorization": Section("Milliseconds per layer of a factorization", _measured("factorization"), 60),
    "compile": Section("What train.compile=true gains in bf16", _measured("compiled"), 180),
}
"""The sections in the order in which they run, the most important first."""


def main() -> int:
    """Run the sections, and print the path of the report."""
    options = arguments()
    report: Path = options.report
    files.refuse_unwritable_file(report, "--report ")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no CUDA device; --device cpu rehearses the check", file=sys.stderr)
        return 2
    files.write(report, f"# GPU check\n\n{facts(options.device)}\n")
    end = time.monotonic() + options.seconds
    failed = []
    with tempfile.TemporaryDirectory(prefix="rosa-gpu-check-") as folder:
        place = Place(options.device, Path(folder))
        for name in options.sections or SECTIONS:
            outcome, text = perform(name, place, min(SECTIONS[name].limit, end - time.monotonic()))
            with files.writing(report), report.open("a", encoding="utf-8") as file:
                file.write(f"## {SECTIONS[name].heading}\n\n`{name}`: {outcome}\n\n{text}\n")
            print(f"{name}: {outcome}", flush=True)
            if not outcome.startswith("ok"):
                failed.append(name)
    print(f"{report}: " + (f"not ok: {', '.join(failed)}" if failed else "all is well"))
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Check and measure everything on a machine with a GPU.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--report", type=Path, default=ROOT / "results" / "gpu_check.md", help="a Markdown file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, on tiny shapes")
    parser.add_argument("--seconds", type=float, default=600, help="for all sections together (default: 600)")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return options


def facts(device: str) -> str:
    """The machine and the software, as a Markdown table."""
    found = environment(device)
    known = {name: value for name, value in found.items() if name != "packages"}
    table = facts_table("facts", "What was checked, and where", {**known, **found["packages"], "GPU": _gpu()})
    return markdown(table)


def _gpu() -> str:
    """A line for each GPU, from the driver."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip().replace("\n", "; ")


def perform(name: str, place: Place, limit: float) -> tuple[str, str]:
    """Run a section in a process of its own; at its time limit, and after it, what it has left running is killed.

    Returns:
        Its outcome with the elapsed seconds, and the Markdown that it printed.
    """
    if limit <= 0:
        return "left out: the time is up", ""
    text, log = place.folder / f"{name}.md", place.log(name)
    for file in (text, log):
        file.touch()
    start = time.monotonic()
    process = multiprocessing.get_context("spawn").Process(target=_section, args=(name, place, text))
    process.start()
    process.join(limit)
    outcome = {0: "ok", None: "killed at its time limit"}.get(process.exitcode, "failed")
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its runs would share the GPU with the next section
    except ProcessLookupError:  # it has left none, or is still being started
        process.kill()
    process.join()
    ending = "" if outcome == "ok" else quoted(log)
    return f"{outcome}, {time.monotonic() - start:.1f} s", text.read_text(encoding="utf-8") + ending


def _section(name: str, place: Place, text: Path) -> None:
    os.setsid()  # a session of its own, so its child processes can be killed with it
    with place.log(name).open("wb") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)  # for the commands that are started, which inherit them
    with text.open("a", encoding="utf-8", buffering=1) as sys.stdout:
        SECTIONS[name].work(place)


if __name__ == "__main__":
    sys.exit(run_command(main))
