"""Measure what ``train.compile=true`` gains: each method's training steps as they are and compiled, interleaved.

Models are compiled by the function that training calls, for batches of any shape. The time of the first compiled step
is that of a machine that has not compiled the model before: each starts with an empty cache.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import BenchmarkError, gemm
from benchmarks.contenders import RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.measured import Case, case_label
from benchmarks.timing import Spread, interleave, ratio, seconds, spread
from benchmarks.workload import Batch, Build, Workload, in_precision, load_model, sizes
from rosa.adapters import resample
from rosa.config import Config
from rosa.report.tables.table import Line, Table
from rosa.run.device import precision_for
from rosa.training import costs
from rosa.training.trainer import compile_in_place
from rosa.utils.console import first_line
from rosa.utils.formatting import MIB

ROUNDS = 15
CASES: Sequence[Case] = (("rosa", RANK), ("lora", RANK), ("robust", RANK), ("ia3", 0), ("full", 0))
"""The project's own methods, to which ``train.compile`` applies."""
FEW = CASES[:2]
"""Those that are measured in bf16 on a CPU, where compiling one takes most of a minute."""
EAGER, COMPILED = "as it is", "compiled"
NEEDED = {"cpu": "a C++ compiler (g++, or the one that CXX names)", "cuda": "Triton and a C compiler"}
"""What ``torch.compile`` needs to compile for a device."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """The measurements of one method in one precision."""

    eager: Sequence[float]
    """Seconds of each step."""
    compiled: Sequence[float]
    """Seconds of each compiled step, on the same batches."""
    first: float
    """Seconds of the first compiled step, which compiles the model."""
    breaks: int
    """Graph breaks: places at which the compiler gave up and Python went on."""
    again: int
    """Compilations after the first step: at batches of other lengths, and at a resample."""
    peaks: tuple[int, int] | None
    """Peak memory of a step and of a compiled one, in bytes; None on a CPU."""

    @property
    def faster(self) -> Spread:
        """How many times as fast as the step is the compiled one."""
        return ratio(self.eager, self.compiled)

    @property
    def pays_after(self) -> int | None:
        """Steps after which the first one's time is won back; None unless three quarters of the pairs were faster."""
        if self.faster.low <= 1:
            return None
        eager, compiled = statistics.median(self.eager), statistics.median(self.compiled)
        return math.ceil((self.first - compiled) / (eager - compiled)) if eager > compiled else None


@dataclasses.dataclass(frozen=True)
class Model:
    """The measurements of one model."""

    name: str
    tokens: Sequence[int]
    """Tokens of each round's batch, padding included."""
    gains: Mapping[tuple[str, Case], Gain]
    """By precision and case."""
    trims: bool = False
    """Whether the eager steps leave out outputs that no label needs."""


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Measure the workload's model on its batches, padded as in training to their own longest examples."""
    batches, compiled = ([workload.batch(number, way) for number in range(rounds)] for way in (False, True))
    config = workload.config
    cases = dict.fromkeys(precisions(workload.device), CASES)
    if workload.device == "cpu" and "bf16" in cases:
        cases["bf16"] = FEW
    return findings("benchmark_compile", [measure(config.model.name, load_model, config, batches, cases, compiled)])


def obstacle(device: str) -> str:
    """Why nothing can be compiled for a device here, as a message for the user; empty if it can."""
    try:
        start(device)
    except BenchmarkError as error:
        return str(error)
    return ""


class _Layer(nn.Module):
    """A layer of this file: PyTorch does not compile the forward passes of its own ones alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).sin().sum()


@functools.cache
def start(device: str) -> float:
    """Start the compiler by compiling a small layer; the seconds that it took, once a process.

    On a GPU this also allocates the matrix products' workspace, which would count as the first method's memory.

    Raises:
        BenchmarkError: it does not work on this machine.
    """
    layer = _Layer().to(device)
    compile_in_place(layer)
    failed: list[RuntimeError] = []

    def compile_layer() -> None:
        try:
            layer(torch.ones(4, 8, device=device)).backward()
        except RuntimeError as error:  # also where there is no compiler
            failed.append(error)

    with _empty_cache():  # which would keep its folder if an error passed it
        taken = seconds(compile_layer, device)
    if failed:
        found = first_line(type(failed[0]).__name__, str(failed[0]))
        raise BenchmarkError(f"torch.compile does not work here, where it needs {NEEDED[device]}: {found}") from failed[
            0
        ]
    return taken


def _empty_cache() -> AbstractContextManager[None]:
    from torch._inductor.utils import fresh_cache  # which takes a second to import

    return fresh_cache()


def precisions(device: str) -> tuple[str, ...]:
    """The precisions in which a device multiplies: an emulated bf16 says nothing of training."""
    if device == "cpu":
        return tuple(gemm.precisions())
    return ("fp32", "bf16") if precision_for("auto", device) == "bf16" else ("fp32",)


def measure(
    name: str,
    build: Build,
    config: Config,
    batches: Sequence[Batch],
    cases: Mapping[str, Sequence[Case]],
    compiled: Sequence[Batch] | None = None,
) -> Model:
    """Measure methods in each precision, all steps of a precision interleaved.

    Args:
        name: the model's name, for the tables.
        build: makes the plain model, on any device, of a configuration: its attention may depend on the precision.
        config: the resolved configuration of a run.
        batches: one for each round, on the device.
        cases: the methods, by precision.
        compiled: the batches of the compiled steps, of the same examples; by default the same.
    """
    device = config.train.device
    start(device)
    gains: dict[tuple[str, Case], Gain] = {}
    for precision, some in cases.items():
        settings = in_precision(config, precision)
        ways = {EAGER: batches, COMPILED: compiled or batches}
        found = _gains(name, build(settings), settings, ways, some)
        gains |= {(precision, case): gain for case, gain in found.items()}
    trims = any(sizes(one) != sizes(other) for one, other in zip(batches, compiled or batches, strict=True))
    return Model(name, [batch["input_ids"].numel() for batch in batches], gains, trims)


def _gains(
    name: str, plain: nn.Module, config: Config, ways: Mapping[str, Sequence[Batch]], cases: Sequence[Case]
) -> dict[Case, Gain]:
    device = config.train.device
    title = f"{name}, {config.train.precision}"
    actions: dict[str, Callable[[int], object]] = {}
    compilations, peaks = {}, {}
    torch._dynamo.reset()
    # The limit holds for all models of a class together, and a run has one.
    with torch._dynamo.config.patch(recompile_limit=len(cases) * torch._dynamo.config.recompile_limit):
        for case in tqdm(cases, desc=f"compiling {title}", unit="method", dynamic_ncols=True):
            for way, batches in ways.items():
                shapes = list({sizes(batch): batch for batch in batches}.values())
                gc.collect()
                before = torch.cuda.memory_allocated() if device == "cuda" else 0
                model = copy.deepcopy(plain).to(torch.device(device))
                contender = Contender(case[0], model, config, case[1] or RANK)
                if way == COMPILED:
                    compilations[case] = _compile(contender, shapes, device)
                else:
                    _warm_up(contender, shapes)
                if device == "cuda":
                    costs.reset_peak_memory(device)
                    contender.step(max(shapes, key=lambda batch: batch["input_ids"].numel()))
                    peaks[case, way] = (costs.peak_memory(device)["device_bytes"] or 0) - before
                actions[f"{case_label(case)} {way}"] = functools.partial(_step, contender, batches)
        taken = interleave(actions, len(ways[EAGER]), device, title)
    torch._dynamo.reset()
    return {
        case: Gain(
            taken[f"{case_label(case)} {EAGER}"],
            taken[f"{case_label(case)} {COMPILED}"],
            *compilations[case],
            (peaks[case, EAGER], peaks[case, COMPILED]) if peaks else None,
        )
        for case in cases
    }


def _step(contender: Contender, batches: Sequence[Batch], position: int) -> None:
    contender.step(batches[position])


def _warm_up(contender: Contender, shapes: Sequence[Batch]) -> None:
    """A step at each shape, and ROSA's at another subspace: no timed step meets anything new."""
    for batch in shapes:
        contender.step(batch)
    if contender.name == "rosa":
        stream = torch.Generator().manual_seed(0)
        resample(contender.model, generator=stream, optimizer=contender.optimizer)
        contender.step(shapes[0])


def _compile(contender: Contender, shapes: Sequence[Batch], device: str) -> tuple[float, int, int]:
    """Compile a contender and warm it up; the seconds of the first step, graph breaks, and later compilations."""
    from torch._dynamo.utils import counters

    counters.clear()
    compile_in_place(contender.model)
    with _empty_cache():
        taken = seconds(lambda: contender.step(shapes[0]), device)
        graphs = counters["stats"]["unique_graphs"]
        _warm_up(contender, shapes)
    return taken, sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"] - graphs


# --- tables ----------------------------------------------------------------------------------------------------------


def findings(name: str, found: Sequence[Model]) -> Findings:
    """Build a table for each model, of names that begin with this one."""
    tables = [_table(name if model is found[0] else f"{name}_{model.name}", model) for model in found]
    return Findings(tables[0], tuple(line for model in found for line in _lines(model)), tuple(tables[1:]))


def _table(name: str, model: Model) -> Table:
    rows, on_gpu = [], any(gain.peaks for gain in model.gains.values())
    for (precision, case), gain in model.gains.items():
        cells = [
            precision,
            case_label(case),
            with_quartiles(spread(gain.eager), 1000),
            with_quartiles(spread(gain.compiled), 1000),
            with_quartiles(gain.faster),
            *(f"{_speed(model, taken):,.0f}" for taken in (gain.eager, gain.compiled)),
            number(gain.first),
            "–" if gain.pays_after is None else f"{gain.pays_after:,}",
            str(gain.breaks),
            str(gain.again),
        ]
        rows.append(row(*cells, *(number(peak / MIB) for peak in gain.peaks or ())))
    header = (
        "precision",
        "method",
        "step, ms",
        "compiled, ms",
        "times as fast",
        "tokens/s",
        "compiled, tokens/s",
        "first step, s",
        "pays after, steps",
        "graph breaks",
        "compiled again",
        *(("peak, MiB", "compiled, MiB") if on_gpu else ()),
    )
    return Table(name, f"{model.name}: what torch.compile gains", header, tuple(rows), tuple(_notes(model, on_gpu)))


def _speed(model: Model, taken: Sequence[float]) -> float:
    """Tokens a second, padding included."""
    return statistics.median(tokens / one for tokens, one in zip(model.tokens, taken, strict=True))


def _notes(model: Model, on_gpu: bool) -> list[Line]:
    tokens = " to ".join(f"{size:,}" for size in sorted({min(model.tokens), max(model.tokens)}))
    notes = [
        f"{len(model.tokens)} whole steps a method and way, all of a precision interleaved, on the same batches of "
        f"{tokens} tokens, with padding. Medians (quartiles); times as fast: of the ratios of steps on the same batch.",
        "First step: it compiles the model, with an empty cache; a second run of the same model finds most of that "
        "done. Pays after: the steps that win this time back, where three quarters of the pairs were faster compiled. "
        "Compiled again: after the first step, at batches of other lengths and at a resample of ROSA's layers.",
    ]
    if model.trims:
        notes.append(
            "A step as it is leaves out the model's outputs that no label needs; a compiled one makes them all, as in "
            "training, where it would be compiled again for each number of them."
        )
    if on_gpu:
        notes.append("Peak: of a step after the first ones, of the memory that PyTorch allocates for this model.")
    if all(precision != "bf16" for precision, _ in model.gains):
        notes.append("bf16 is left out where the device only emulates it.")
    return [note(text) for text in notes]


def _lines(model: Model) -> list[Measurement]:
    lines = []
    for (precision, case), gain in model.gains.items():
        label = f"{model.name}, {precision}: {case_label(case)}"
        lines += [
            Measurement(label, "step", "s", spread(gain.eager)),
            Measurement(label, "compiled step", "s", spread(gain.compiled)),
            Measurement(label, "step relative to the compiled one", "", gain.faster),
            Measurement(label, "tokens per second", "1/s", _speed(model, gain.eager)),
            Measurement(label, "tokens per second, compiled", "1/s", _speed(model, gain.compiled)),
            Measurement(label, "first compiled step", "s", gain.first),
            Measurement(label, "graph breaks", "", gain.breaks),
            Measurement(label, "compilations after the first step", "", gain.again),
        ]
        if gain.peaks:
            lines += [
                Measurement(label, quantity, "byte", peak)
                for quantity, peak in zip(("peak memory", "peak memory, compiled"), gain.peaks, strict=True)
            ]
    return lines
