"""Interleaved measurements of speed and memory: training steps, one layer, compiled steps, padding, factorization and
its parts, sparse trainable parts, the rate of matrix products, decoding and scoring of texts, GPT-2 at its real size,
tables, figures and report of large sweeps.

Each benchmark is one module with ``benchmark(workload, rounds)``; :mod:`benchmarks.suite` runs them and writes
their results.
"""

from __future__ import annotations

from collections.abc import Sequence

from rosa.errors import RosaError

NAMES = (
    "costs",
    "layer",
    "compile",
    "against",
    "gpu",
    "padding",
    "factorization",
    "solvers",
    "stages",
    "scaling",
    "sparse",
    "gemm",
    "decoding",
    "scoring",
    "full_size",
    "reports",
)
"""The benchmarks, in the order in which they run."""
ALL = "all"
OF_A_MODEL = ("costs", "compile", "padding", "factorization", "gemm")
"""Those that can measure a user's model."""


class BenchmarkError(RosaError, ValueError):
    """A benchmark cannot run with these arguments; the message says what is accepted."""


def check(names: Sequence[str], asked: str = "", repeats: int | None = None) -> None:
    """Check what was asked for, without importing PyTorch.

    Args:
        names: of benchmarks, or ``all``.
        asked: what the user wrote after ``model=``; empty for the benchmarks' own model.
        repeats: rounds of each benchmark, if given.

    Raises:
        BenchmarkError: an unknown name, one that cannot measure a user's model, or fewer than one repeat.
    """
    unknown = [name for name in names if name not in (*NAMES, ALL)]
    if unknown:
        raise BenchmarkError(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}, and {ALL}")
    unfit = [name for name in names if asked and name not in (*OF_A_MODEL, ALL)]
    if unfit:
        raise BenchmarkError(
            f"model={asked}: {', '.join(unfit)} cannot measure a model of your own; {', '.join(OF_A_MODEL)} can"
        )
    if repeats is not None and repeats < 1:
        raise BenchmarkError(f"--repeats {repeats}: expected at least 1")
