"""Measure how the time and the memory of a resample grow with the number of layers, on the CPU.

Layers are factorized as many at once as PyTorch has threads, so the time grows with the number of layers and the memory
only up to that many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.contenders import RANK
from benchmarks.findings import Measurement, note, number, row, with_quartiles
from benchmarks.timing import Spread, seconds, spread
from rosa.adapters import attach, resample
from rosa.adapters.linalg.subspace import layers_at_once, working_bytes
from rosa.config import RosaConfig
from rosa.report.tables.table import Table
from rosa.training import costs
from rosa.utils.seeding import generator

WIDTH = 2048
"""A float64 matrix of this width is 32 MiB, which the C library maps on its own and gives back when it is freed;
smaller ones stay in the process, and would be missing in its peak."""
LAYERS = (1, 2, 4, 8)
GIB = 2**30
DOUBLE = 8
"""Bytes of a float64 number."""


@dataclass(frozen=True)
class Growth:
    """The measurements of a resample of some layers."""

    time: Spread
    """Seconds."""
    peak: int | None
    """Bytes of resident memory beyond those before it; None if the system does not report or reset them."""


def benchmark(rounds: int, seed: int, width: int = WIDTH, numbers: Sequence[int] = LAYERS) -> dict[int, Growth]:
    """Measure a resample of each number of square layers of random weights."""
    return {
        count: measure(stack(count, width, seed), rounds, seed)
        for count in tqdm(numbers, desc="layers", unit="model", dynamic_ncols=True)
    }


def stack(count: int, width: int, seed: int) -> nn.Module:
    """So many square layers of random weights under ROSA."""
    torch.manual_seed(seed)
    layers = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(count)))
    config = RosaConfig(rank=RANK, targets=["*"], head="freeze")
    return attach(layers, config, generator=generator(seed, "adapter"), verbose=False)


def measure(model: nn.Module, rounds: int, seed: int) -> Growth:
    """Measure a resample of all layers of a model; the peak is the largest of the rounds."""
    stream = generator(seed, "resample")
    taken, peaks = [], []
    for _ in range(rounds):
        costs.reset_peak_memory("cpu")
        before = costs.memory_in_use("cpu")
        taken.append(seconds(lambda: resample(model, generator=stream), "cpu"))
        found = costs.peak_memory("cpu")
        if before is not None and isinstance(found["host_bytes"], int) and found["host_peak_reset"]:
            peaks.append(found["host_bytes"] - before)
    return Growth(spread(taken), max(peaks) if len(peaks) == rounds else None)


def resample_bytes(shape: tuple[int, int], layers: int, threads: int) -> int:
    """Bytes that a resample needs at once on the CPU, besides the model: for (out, in) weights, so many layers.

    As many layers as there are threads are merged in float64, one by one, and copied into one stack, which is
    factorized: each of them needs its weight and a Gram matrix. Then one layer after the other gets its W_f, which
    takes three matrices in float64: the merged weight, A B, and their difference.
    """
    at_once = min(layers, threads)
    whole = DOUBLE * shape[0] * shape[1]
    return max((at_once + 2) * whole, 2 * at_once * whole, at_once * working_bytes(*shape, "cpu"))


def table(found: Mapping[int, Growth], width: int = WIDTH) -> tuple[Table, list[Measurement]]:
    """The table of the numbers of layers, and its figures."""
    threads = layers_at_once(width, width, torch.device("cpu"))
    first = found[min(found)].time.median / min(found)
    rows = []
    lines: list[Measurement] = []
    for count, one in found.items():
        expected = resample_bytes((width, width), count, threads)
        rows.append(
            row(
                str(count),
                with_quartiles(one.time, 1000),
                number(one.time.median / count / first),
                "–" if one.peak is None else number(one.peak / GIB),
                number(expected / GIB),
            )
        )
        case = f"{count} layers of {width} x {width}"
        lines += [
            Measurement(case, "resample", "s", one.time),
            Measurement(case, "modelled memory of the resample", "byte", expected),
        ]
        if one.peak is not None:
            lines.append(Measurement(case, "peak memory of the resample", "byte", one.peak))
    notes = (
        note(
            f"A resample of square layers of {width:,} x {width:,}, rank {RANK}, on {threads} threads: merging, "
            f"drawing, factorizing, W_f; median (quartiles) of {found[min(found)].time.count}. Time a layer: relative "
            f"to that of {min(found)}. Memory beyond the model's: the process's peak, and the model of it; as many "
            "layers at once as there are threads."
        ),
    )
    header = ("layers", "resample, ms", "time a layer", "memory, GiB", "modelled, GiB")
    return Table("scaling_layers", "A resample, by number of layers", header, tuple(rows), notes), lines
