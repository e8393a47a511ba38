"""Time each step of a factorization on the CPU, for weights of several sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.contenders import RANK
from benchmarks.factorization import factorize_by_svd
from benchmarks.findings import Findings, Measurement, note, number, row
from benchmarks.solvers import random_weight
from benchmarks.timing import ratio, seconds, spread
from benchmarks.workload import Workload
from rosa.adapters.linalg import eigenvectors
from rosa.adapters.linalg.subspace import Factors, draw_indices, one_blas_thread
from rosa.report.tables.table import Table

ROUNDS = 5
SIZES = (384, 768, 1024, 2048, 4096)
LARGE = 2048
"""From this size on one round is enough: the times are seconds, and their noise is small in comparison."""
SVD = 1024
"""Up to this size the SVD is timed too; at 4096 it alone takes a minute."""

STAGES = (
    "Gram matrix",
    "reduction",
    "eigenvalues",
    "inverse iteration",
    "back-transformation",
    "QR and W V",
    "residual",
)
"""The steps, in the order in which they run."""


def timed_factorization(weight: Tensor, indices: Tensor) -> tuple[Factors, dict[str, float]]:
    """Repeat the steps of ``factorize_along`` on one tall or square weight on the CPU; also return their seconds.

    The indices must ascend, as drawn indices do.
    """
    taken: dict[str, float] = {}
    last = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        taken[stage], last = now - last, now

    W = weight.double()
    G = (W.T.numpy() @ W.numpy()).T  # Fortran order, as in factorize_along()
    done("Gram matrix")
    T = eigenvectors.tridiagonalize(G)
    done("reduction")
    n = weight.shape[1]
    values = eigenvectors.eigenvalues(T, np.append(np.sort(n - 1 - indices.numpy()), n - 1))
    done("eigenvalues")
    vectors = eigenvectors.inverse_iteration(T, values[:-1])
    done("inverse iteration")
    turned = eigenvectors.back_transform(T, vectors)
    done("back-transformation")
    V = torch.linalg.qr(torch.from_numpy(turned[:, ::-1].copy())).Q
    factors = Factors(W @ V, V.T.contiguous())
    done("QR and W V")
    torch.addmm(W, factors.A, factors.B, alpha=-1)
    done("residual")
    return factors, taken


def benchmark(workload: Workload, rounds: int, sizes: Sequence[int] = SIZES) -> Findings:
    """Time the steps on square weights on the CPU; the workload gives only the seed."""
    generator = torch.Generator().manual_seed(workload.config.seed)
    by_size: dict[int, dict[str, list[float]]] = {}
    decompositions: dict[int, list[float]] = {}
    with tqdm(total=len(sizes), desc="stages", unit="size", dynamic_ncols=True) as bar:
        for size in sizes:
            weight = random_weight((size, size), generator)
            indices = draw_indices(size, RANK, "random", generator)
            by_size[size] = {stage: [] for stage in STAGES}
            for _ in range(rounds if size < LARGE else 1):
                with one_blas_thread():
                    _, taken = timed_factorization(weight, indices)
                for stage in STAGES:
                    by_size[size][stage].append(taken[stage])
                if size <= SVD:
                    plain = seconds(lambda weight=weight: factorize_by_svd(weight, RANK, generator), "cpu")  # type: ignore[misc]
                    decompositions.setdefault(size, []).append(plain)
            bar.update(1)
    return findings(by_size, decompositions, torch.get_num_threads())


def findings(
    by_size: Mapping[int, Mapping[str, Sequence[float]]], decompositions: Mapping[int, Sequence[float]], threads: int
) -> Findings:
    """Build the table.

    Args:
        by_size: for each size, the seconds of each of ``STAGES``.
        decompositions: seconds of an SVD and reconstruction, for the sizes where it was timed.
        threads: number of PyTorch threads.
    """
    rows, lines = [], []
    for size, stages in by_size.items():
        case = f"{size} x {size}"
        whole = [sum(one) for one in zip(*(stages[stage] for stage in STAGES), strict=True)]
        medians = [spread(stages[stage]) for stage in STAGES]
        faster = ratio(decompositions[size], whole) if size in decompositions else None
        cells = [number(1000 * one.median) for one in (*medians, spread(whole))]
        rows.append(row(case, *cells, str(len(whole)), number(faster.median) if faster else "–"))
        lines += [Measurement(case, stage, "s", one) for stage, one in zip(STAGES, medians, strict=True)]
        lines.append(Measurement(case, "total", "s", spread(whole)))
        if faster:
            lines.append(Measurement(case, "svd relative to total", "", faster))
    notes = (
        note(
            "Random square weights as above; the SVD is that of PyTorch in float32 with rebuilding, up to "
            f"{SVD:,} x {SVD:,}."
        ),
        note(
            f"Rank {RANK}, on the CPU; medians of the rounds. LAPACK has one thread, PyTorch (the last two steps, the "
            f"SVD) {threads}."
        ),
    )
    header = ("weight, ms", *STAGES, "total", "rounds", "SVD / total")
    return Findings(
        Table("benchmark_stages", "Where the time of a factorization goes", header, tuple(rows), notes), tuple(lines)
    )
