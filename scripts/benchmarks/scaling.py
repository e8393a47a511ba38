"""Measure how factorization grows with the width of a layer, and model what it takes for large language models.

The cost of a factorization is that of its Gram matrix, ``m n^2`` for a weight of ``m x n`` with ``n <= m``, and of the
reduction to tridiagonal form, ``n^3``. Each term's rate is taken from the largest measured width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tqdm import tqdm

from benchmarks.contenders import RANK
from benchmarks.findings import Findings, Measurement, note, number, row
from benchmarks.solvers import random_weight
from benchmarks.stages import timed_factorization
from benchmarks.timing import Spread, seconds, spread
from benchmarks.workload import Workload
from rosa.adapters import factorization
from rosa.adapters.linalg.subspace import draw_indices, one_blas_thread
from rosa.config import RosaConfig
from rosa.report.tables.table import Table

ROUNDS = 3
WIDTHS = (384, 768, 1024, 2048, 4096)
LARGE = 4096
"""From this width on one round is enough: the times are seconds, and their noise is small in comparison."""
GIB = 2**30
DOUBLE = 8
"""Bytes of a float64 number."""

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


def benchmark(workload: Workload, rounds: int, widths: Sequence[int] = WIDTHS) -> Findings:
    """Time factorizations of square weights on one core of the CPU; the workload gives only the seed."""
    generator = torch.Generator().manual_seed(workload.config.seed)
    found = {}
    for width in tqdm(widths, desc="widths", unit="width", dynamic_ncols=True):
        found[width] = _measure(width, rounds if width < LARGE else 1, generator)
    return findings(found)


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


def modelled(shape: Shape, width: int, measured: Width) -> float:
    """Estimated seconds of a factorization of an (out, in) weight, from the times of a square weight."""
    n, m = sorted(shape)
    return measured.gram.median * m * n**2 / width**3 + measured.rest.median * (n / width) ** 3


def working_bytes(shape: Shape) -> int:
    """Bytes that the factorization of a layer needs at once: the weight and its Gram matrix, in float64."""
    n, m = sorted(shape)
    return DOUBLE * (m * n + n * n)


def findings(found: Mapping[int, Width]) -> Findings:
    """Build the tables of the widths and of the language models."""
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
                number(working_bytes((width, width)) / GIB),
                str(one.rest.count),
            )
        )
        case = f"{width} x {width}"
        lines += [
            Measurement(case, "Gram matrix", "s", one.gram),
            Measurement(case, "rest of a factorization", "s", one.rest),
            Measurement(case, "random orthonormal basis", "s", one.orthogonal),
            Measurement(case, "working memory", "byte", working_bytes((width, width))),
        ]
    notes = (
        note(
            f"Random square weights, rank {RANK}, one core; medians. Modelled / measured: the model of the table "
            f"below, from {largest:,} x {largest:,}, against what was measured. Memory: of one layer in float64."
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
    return Findings(table, tuple(lines), (_models(found[largest], largest),))


def _models(measured: Width, width: int) -> Table:
    rows = []
    for name, layers in LANGUAGE_MODELS.items():
        whole = sum(count * modelled(shape, width, measured) for shape, count in layers.items())
        most = max(layers, key=working_bytes)
        within = max(max(shape) for shape in layers) <= width
        rows.append(
            row(
                name,
                str(sum(layers.values())),
                f"{most[0]:,} x {most[1]:,}",
                "within" if within else "beyond",
                number(whole / 60),
                number(whole / 60 / 8),
                number(working_bytes(most) / GIB),
            )
        )
    notes = (
        note(
            f"Modelled from {width:,} x {width:,}: the Gram matrix as m n^2, the rest as n^3, for m x n with n at "
            "most m; widths within or beyond those measured. Layers are independent, so eight processes or cores take "
            "an eighth. Attention layers by the models' published configurations."
        ),
    )
    header = ("model", "layers", "widest", "measured widths", "one core, min", "eight cores, min", "memory, GiB")
    return Table("scaling_models", "A resample of a language model's attention layers", header, tuple(rows), notes)
