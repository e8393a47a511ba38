"""Check and measure everything on a machine with a GPU, in at most 15 minutes; the report is Markdown for an issue.

python scripts/gpu_check.py [tests|steps-roberta|steps-gpt2|factorization|runs|resume|processes|compile ...]
    [--report results/gpu_check.md] [--device cuda] [--seconds 900]

Each section runs in a process of its own with a time limit and is added to the report when it ends, so a crash, a hang
or a cut-off affects only its own section. ``--device cpu`` rehearses all sections on models of a few thousand
parameters.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import gc
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run from a clone without an installation

import torch
from benchmarks import costs, memory
from benchmarks.contenders import RANK, Contender
from benchmarks.factorization import factorize_by_svd
from benchmarks.findings import facts_table, row, with_quartiles
from benchmarks.measured import Case, case_label, cases_at
from benchmarks.timing import Spread, ratio, seconds, spread
from benchmarks.workload import Batch, configure
from torch import Tensor, distributed
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rosa import records
from rosa.adapters.linalg.subspace import draw_indices, factorize_along, layers_at_once
from rosa.config import Config
from rosa.errors import RosaError
from rosa.records import Record
from rosa.records.environment import environment
from rosa.report.tables.markdown import markdown
from rosa.report.tables.table import Table
from rosa.utils.formatting import MIB

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "bf16")
STEPS = 20
"""Timed steps of each method."""
ROUNDS = 5
"""Timed factorizations."""
LAYERS = (1, 4, 16)
"""Layers of one shape that are factorized as a stack."""
SHAPES = ((768, 768), (2304, 768), (1024, 1024), (4096, 1024))
"""Weights (out, in) of RoBERTa-base and GPT-2, of their large versions, and of a feed-forward layer."""
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


# --- measurements ----------------------------------------------------------------------------------------------------


def roberta(place: Place) -> tuple[PreTrainedModel, Batch]:
    """A RoBERTa-base with random weights, and a batch of 32 examples of 128 tokens."""
    small: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 99}
    shape = RobertaConfig(max_position_embeddings=514, type_vocab_size=1, **(small if place.small else {}))
    ids = torch.randint(3, shape.vocab_size, (2, 8) if place.small else (32, 128))
    labels = torch.randint(2, (len(ids),))
    return _on(place, RobertaForSequenceClassification(shape), ids, labels)


def gpt2(place: Place) -> tuple[PreTrainedModel, Batch]:
    """A GPT-2 (124M) with random weights, and a batch of 8 texts of 256 tokens."""
    small: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 99, "bos_token_id": 0}
    shape = GPT2Config(**(small | {"eos_token_id": 0} if place.small else {}))
    ids = torch.randint(shape.vocab_size, (2, 8) if place.small else (8, 256))
    return _on(place, GPT2LMHeadModel(shape), ids, ids)


def _on(place: Place, model: PreTrainedModel, ids: Tensor, labels: Tensor) -> tuple[PreTrainedModel, Batch]:
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return model, {key: tensor.to(place.device) for key, tensor in batch.items()}


def settings(place: Place, precision: str) -> Config:
    """A configuration with the protocol's optimizer and clipping."""
    config = configure(ROOT / "conf", "roberta-base", None, place.device, 32)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))


def contend(case: Case, plain: PreTrainedModel, config: Config) -> Contender:
    """A contender on the device, made from a copy of a model; the original stays on the host."""
    gc.collect()  # optimizers hold reference cycles; free the previous one before measuring the peak
    copied = copy.deepcopy(plain).to(config.train.device)  # type: ignore[arg-type]
    return Contender(case[0], copied, config, case[1] or RANK)


def timed(action: Callable[[], object], place: Place) -> Spread:
    """Time an action in seconds, after one untimed call that initializes the solver."""
    action()
    return spread([seconds(action, place.device) for _ in range(ROUNDS)])


def steps_of(place: Place, build: Callable[[Place], tuple[PreTrainedModel, Batch]]) -> None:
    """Measure time and memory of a training step of each method, and of a resample of all layers."""
    plain, batch = build(place)
    shape, parameters = tuple(batch["input_ids"].shape), sum(parameter.numel() for parameter in plain.parameters())
    print(f"Batches of {shape} tokens; {parameters:,} parameters.\n")
    for precision in PRECISIONS:
        _steps_in(place, plain, batch, precision)  # leaves nothing on the device


def _steps_in(place: Place, plain: PreTrainedModel, batch: Batch, precision: str) -> None:
    config = settings(place, precision)
    # One at a time: on a GPU the peak counts everything allocated.
    held = {case: memory.of_steps(contend(case, plain, config), batch, place.device) for case in cases_at([RANK])}
    on_device = copy.deepcopy(plain).to(place.device)  # type: ignore[arg-type]
    batches = [batch] * (2 if place.small else STEPS)
    name = type(plain).__name__
    found = costs.measure(f"{name}, {precision}", on_device, config, batches, cases_at([RANK]))
    whole = costs.interleaved({case: contend(case, plain, config) for case in held}, batches, place.device)
    print(f"### {precision}\n")
    for table in costs.findings([dataclasses.replace(found, memory=held)]).tables:
        print(markdown(table))
    print("Whole steps, without waits inside, ms: ", end="")
    print("; ".join(f"{case_label(case)} {with_quartiles(spread(taken), 1000)}" for case, taken in whole.items()))
    print(flush=True)


def steps_roberta(place: Place) -> None:
    """Training steps of RoBERTa-base's shape."""
    steps_of(place, roberta)


def steps_gpt2(place: Place) -> None:
    """Training steps of GPT-2's shape."""
    steps_of(place, gpt2)


def factorization(place: Place) -> None:
    """Milliseconds per layer to factorize a stack of weights, and of a plain SVD of one."""
    stream = torch.Generator().manual_seed(0)
    rows = []
    for shape in ((48, 32),) if place.small else SHAPES:
        weights = torch.randn(max(LAYERS), *shape, generator=stream).to(place.device)
        cells = [f"{shape[0]} x {shape[1]}"]
        for count in LAYERS:
            drawn = torch.stack([draw_indices(min(shape), RANK, "random", stream) for _ in range(count)])
            cells.append(
                with_quartiles(timed(functools.partial(factorize_along, weights[:count], drawn), place), 1000 / count)
            )
        plain = timed(functools.partial(factorize_by_svd, weights[0], RANK, stream), place)
        most = layers_at_once(*shape, torch.device(place.device))
        rows.append(row(*cells, with_quartiles(plain, 1000), str(most)))
    header = ("weight, out x in", *(f"{count} at once" for count in LAYERS), "SVD and rebuilding", "most at once")
    print(
        markdown(Table("factorization", "Milliseconds per layer of a factorization at rank 8", header, tuple(rows), ()))
    )


def compiled(place: Place) -> None:
    """Training steps of RoBERTa-base's shape in bf16, as they are and through torch.compile."""
    plain, batch = roberta(place)
    batches = [batch] * (2 if place.small else STEPS)
    rows = []
    for case in (("rosa", RANK), ("lora", RANK), ("full", 0)):
        contender = contend(case, plain, settings(place, "bf16"))
        eager = costs.interleaved({case: contender}, batches, place.device)[case]
        start = time.perf_counter()
        contender.model = torch.compile(contender.model)  # type: ignore[assignment]
        contender.step(batch)
        first = time.perf_counter() - start
        after = costs.interleaved({case: contender}, batches, place.device)[case]
        times = (with_quartiles(spread(eager), 1000), with_quartiles(spread(after), 1000))
        rows.append(row(case_label(case), *times, with_quartiles(ratio(eager, after)), f"{first:.0f}"))
        print(f"{case_label(case)}: {times[0]} ms, compiled {times[1]} ms\n", flush=True)  # in case the next one hangs
    header = ("method", "step, ms", "compiled, ms", "faster", "first step, s")
    print(markdown(Table("compile", "torch.compile", header, tuple(rows), ())))


# --- the report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A section of the report, and its time limit."""

    work: Callable[[Place], None]
    """Prints Markdown; its docstring's first line is the section's heading."""
    limit: float
    """Time limit in seconds."""


SECTIONS = {
    "tests": Section(tests, 180),
    "steps-roberta": Section(steps_roberta, 90),
    "steps-gpt2": Section(steps_gpt2, 90),
    "factorization": Section(factorization, 90),
    "runs": Section(runs, 180),
    "resume": Section(resume, 120),
    "processes": Section(processes, 120),
    "compile": Section(compiled, 180),
}
"""The sections in the order in which they run, the most important first."""


def main() -> int:
    """Run the sections, and print the path of the report."""
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no CUDA device; --device cpu rehearses the check", file=sys.stderr)
        return 2
    report: Path = options.report
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(f"# GPU check\n\n{facts(options.device)}\n", encoding="utf-8")
    end = time.monotonic() + options.seconds
    failed = []
    with tempfile.TemporaryDirectory(prefix="rosa-gpu-check-") as folder:
        place = Place(options.device, Path(folder))
        for name in options.sections or SECTIONS:
            outcome, text = perform(name, place, min(SECTIONS[name].limit, end - time.monotonic()))
            heading = (SECTIONS[name].work.__doc__ or name).splitlines()[0].rstrip(".")
            with report.open("a", encoding="utf-8") as file:
                file.write(f"## {heading}\n\n`{name}`: {outcome}\n\n{text}\n")
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
    parser.add_argument("--seconds", type=float, default=900, help="for all sections together (default: 900)")
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
    """Run a section in a process of its own; at its time limit it is killed together with its child processes.

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
    if process.pid is not None and process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
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
    sys.exit(main())
