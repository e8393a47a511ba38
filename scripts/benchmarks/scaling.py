"""Measure how factorization grows with the width of a layer, and model what it takes for large language models.

The cost of a factorization is that of its Gram matrix, ``m n^2`` for a weight of ``m x n`` with ``n <= m``, and of the
reduction to tridiagonal form, ``n^3``. Each term's rate is taken from the largest measured width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import growth
from benchmarks.contenders import RANK
from benchmarks.findings import Findings, Measurement, note, number, row
from benchmarks.growth import GIB, Growth, resample_bytes
from benchmarks.solvers import random_weight
from benchmarks.stages import timed_factorization
from benchmarks.timing import Spread, seconds, spread
from benchmarks.workload import Workload
from rosa.adapters import factorization
from rosa.adapters.linalg.subspace import draw_indices, one_blas_thread
from rosa.config import RosaConfig
from rosa.report.tables.table import Table

ROUNDS = 3
WIDTHS = (384, 768, 1024, 2048, 4096, 8192)
PARTIAL = 1024
"""Up to this width the randomized solver is compared."""
OVERSAMPLING, ITERATIONS = 8, 4
"""Of the randomized solver: more columns than the rank, and power iterations."""
PROCESSES = 8
"""Over which a resample is modelled."""
HALF = 2
"""Bytes of a bfloat16 number."""
LARGE = 4096
"""From this width on one round is enough: the times are seconds, and their noise is small in comparison."""
LINK = 10
"""GiB a second between processes, by which the time of gathering sharded weights is modelled."""

Shape = tuple[int, int]
LANGUAGE_MODELS: dict[str, dict[Shape, int]] = {
    "Llama 3.2 1B": {(2048, 2048): 32, (512, 2048): 32},
    "Llama 3.1 8B": {(4096, 4096): 64, (1024, 4096): 64},
    "Llama 3.1 70B": {(8192, 8192): 160, (1024, 8192): 160},
}
"""The attention layers, (out, in) and their number, by the models' published configurations: 16, 32 and 80 layers
with query and output of the model's width, key and value of 8 heads of 64, 128 and 128."""


@dataclass(frozen=True)
class Width:
    """The measurements of square weights of one width."""

    gram: Spread
    """Seconds of the Gram matrix."""
    rest: Spread
    """Seconds of the rest of a factorization by drawn singular triplets."""
    orthogonal: Spread
    """Seconds of a factorization by a random orthonormal basis, which needs no decomposition."""

    @property
    def total(self) -> float:
        """Median seconds of a factorization."""
        return self.gram.median + self.rest.median


@dataclass(frozen=True)
class Partial:
    """A randomized solver for the top triplets of a square weight, beside the exact one."""

    exact: Spread
    """Seconds of the exact factorization."""
    randomized: Spread
    """Seconds of the randomized one."""
    sine: float
    """Sine of the largest angle between the two subspaces: 0 where they are the same."""
    change: float
    """Largest change of an entry of W_f + A B by the randomized factorization, relative to the largest entry of W."""


def benchmark(workload: Workload, rounds: int, widths: Sequence[int] = WIDTHS, width: int = growth.WIDTH) -> Findings:
    """Time factorizations of square weights on one core of the CPU, and resamples of several layers of one width.

    The workload gives only the seed.

    Args:
        workload: as of every benchmark.
        rounds: as of every benchmark.
        widths: of the weights that are factorized alone.
        width: of the layers that are resampled together.
    """
    generator = torch.Generator().manual_seed(workload.config.seed)
    layers = growth.benchmark(rounds, workload.config.seed, width)
    found, partials = {}, {}
    for one in tqdm(widths, desc="widths", unit="width", dynamic_ncols=True):
        found[one] = _measure(one, rounds if one < LARGE else 1, generator)
        if one <= PARTIAL:
            weight = random_weight((one, one), generator)
            partials[one] = randomized(weight, RANK, rounds, workload.config.seed)
    return findings(found, partials, layers, width)


def _measure(width: int, rounds: int, generator: torch.Generator) -> Width:
    weight = random_weight((width, width), generator)
    config = RosaConfig(rank=RANK, factorization="random_orthogonal")
    gram, rest, orthogonal = [], [], []
    with one_blas_thread():
        for _ in range(rounds):
            _, taken = timed_factorization(weight, draw_indices(width, RANK, "random", generator))
            gram.append(taken["Gram matrix"])
            rest.append(sum(taken.values()) - gram[-1])
            drawn = factorization.draw(config, width, width, RANK, generator)[None]
            orthogonal.append(seconds(partial(factorization.factorize, config, weight[None], drawn), "cpu"))
    return Width(spread(gram), spread(rest), spread(orthogonal))


def randomized(weight: Tensor, rank: int, rounds: int, seed: int) -> Partial:
    """Factorize by the top triplets, exactly and by subspace iteration from random vectors, on one core.

    Source of the randomized solver: Halko, Martinsson and Tropp 2011, algorithm 5.1, in ``torch.svd_lowrank``.
    """
    W, top = weight.double(), torch.arange(rank)
    exact, times = [], []
    with one_blas_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(rounds):
            parts, taken = timed_factorization(weight, top)
            exact.append(sum(taken.values()))
            found: list[Tensor] = []
            times.append(seconds(lambda found=found: found.append(_approximate_top(W, rank)), "cpu"))  # type: ignore[misc]
    V = found[0]
    frozen = torch.addmm(W, W @ V, V.T, alpha=-1)
    change = (frozen + (W @ V) @ V.T - W).abs().max() / W.abs().max()
    beyond = V - parts.B.T @ (parts.B @ V)
    return Partial(spread(exact), spread(times), float(torch.linalg.matrix_norm(beyond, ord=2)), float(change))


def _approximate_top(W: Tensor, rank: int) -> Tensor:
    """Approximate right singular vectors (in, rank) of the largest singular values; also makes W_f."""
    V = torch.svd_lowrank(W, q=min(rank + OVERSAMPLING, *W.shape), niter=ITERATIONS)[2][:, :rank]
    torch.addmm(W, W @ V, V.T, alpha=-1)
    return V


def modelled(shape: Shape, width: int, measured: Width) -> float:
    """Estimated seconds of a factorization of an (out, in) weight, from the times of a square weight."""
    n, m = sorted(shape)
    return measured.gram.median * m * n**2 / width**3 + measured.rest.median * (n / width) ** 3


def findings(
    found: Mapping[int, Width], partials: Mapping[int, Partial], layers: Mapping[int, Growth], width_of_layers: int
) -> Findings:
    """Build the tables of the widths, of the numbers of layers, of the language models and of the randomized solver."""
    widths = sorted(found)
    largest = widths[-1]
    rows, lines = [], []
    for width in widths:
        one = found[width]
        from_largest = modelled((width, width), largest, found[largest])
        rows.append(
            row(
                f"{width:,} x {width:,}",
                number(1000 * one.total),
                number(1000 * one.gram.median),
                "–" if width == largest else number(from_largest / one.total),
                number(1000 * one.orthogonal.median),
                number(resample_bytes((width, width), 1, 1) / GIB),
                str(one.rest.count),
            )
        )
        case = f"{width} x {width}"
        lines += [
            Measurement(case, "Gram matrix", "s", one.gram),
            Measurement(case, "rest of a factorization", "s", one.rest),
            Measurement(case, "random orthonormal basis", "s", one.orthogonal),
            Measurement(case, "working memory", "byte", resample_bytes((width, width), 1, 1)),
        ]
    notes = (
        note(
            f"Random square weights, rank {RANK}, one core; medians. Modelled / measured: the model of the language "
            f"models' table, from {largest:,} x {largest:,}, against what was measured. Memory: modelled, of a "
            "resample of one layer beyond the model's: three matrices of its size in float64 (measured in the next "
            "table)."
        ),
    )
    header = (
        "weight, ms",
        "factorization",
        "of it Gram",
        "modelled / measured",
        "random basis",
        "memory, GiB",
        "rounds",
    )
    table = Table("scaling", "Factorization by drawn singular triplets, by width", header, tuple(rows), notes)
    for width, top in partials.items():
        case = f"{width} x {width}"
        lines += [
            Measurement(case, "exact top triplets", "s", top.exact),
            Measurement(case, "randomized top triplets", "s", top.randomized),
            Measurement(case, "sine of the angle between them", "", top.sine),
            Measurement(case, "change of the weight by the randomized factorization", "", top.change),
        ]
    by_number, more = growth.table(layers, width_of_layers)
    further = (by_number, _models(found[largest], largest), _partials(partials))
    return Findings(table, (*lines, *more), further)


def _partials(partials: Mapping[int, Partial]) -> Table:
    rows = [
        row(
            f"{width:,} x {width:,}",
            number(1000 * one.exact.median),
            number(1000 * one.randomized.median),
            f"{one.sine:.2g}",
            f"{one.change:.1e}",
        )
        for width, one in partials.items()
    ]
    notes = (
        note(
            f"The {RANK} largest singular triplets of the weights above, one core, medians: exactly, and by "
            f"torch.svd_lowrank with {OVERSAMPLING} more columns and {ITERATIONS} iterations. Angle: the sine of the "
            "largest one between the two subspaces; 1: a direction of one is orthogonal to the other. Change: of "
            "W_f + A B, relative to the largest entry of W; the factorization is exact for any orthonormal basis."
        ),
    )
    header = ("weight", "exact, ms", "randomized, ms", "angle", "change of the weight")
    return Table("scaling_partial", "A randomized solver for sampling=top", header, tuple(rows), notes)


def _models(measured: Width, width: int) -> Table:
    rows = []
    for name, layers in LANGUAGE_MODELS.items():
        whole = sum(count * modelled(shape, width, measured) for shape, count in layers.items())
        most = max(layers, key=math.prod)
        within = max(max(shape) for shape in layers) <= width
        gathered = 2 * HALF * sum(math.prod(shape) * count for shape, count in layers.items()) / GIB
        rows.append(
            row(
                name,
                str(sum(layers.values())),
                f"{most[0]:,} x {most[1]:,}",
                "within" if within else "beyond",
                number(whole / 60),
                number(whole / 60 / PROCESSES),
                number(resample_bytes(most, 1, 1) / GIB),
                number(gathered),
                number(gathered / LINK),
            )
        )
    notes = (
        note(
            f"Modelled from {width:,} x {width:,}: the Gram matrix as m n^2, the rest as n^3, for m x n with n at "
            "most m; widths within or beyond those measured. Layers are independent, so eight processes or cores take "
            "an eighth of one core's minutes, without what they send each other. Memory: of the widest layer, "
            "resampled alone; each further thread adds one or two such matrices in float64. Gathered: what each "
            "process gets where FSDP shards the weights, every adapted one twice, in bfloat16. Sent: the seconds that "
            f"this takes at {LINK} GiB/s, which are not in the minutes. Attention layers by the models' published "
            "configurations."
        ),
    )
    header = (
        "model",
        "layers",
        "widest",
        "measured widths",
        "min",
        f"min / {PROCESSES}, computing",
        "memory, GiB",
        "gathered, GiB",
        "sent, s",
    )
    return Table("scaling_models", "A resample of a language model's attention layers", header, tuple(rows), notes)
