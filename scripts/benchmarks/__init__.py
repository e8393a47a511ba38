"""Interleaved measurements of speed and memory: training steps, one layer, compiled steps, padding, factorization and
its parts, sparse trainable parts, the rate of matrix products, decoding and scoring of texts, GPT-2 at its real size,
tables, figures and report of large sweeps.

Each benchmark is one module with ``benchmark(workload, rounds)``; :mod:`benchmarks.suite` runs them and writes
their results.
"""

from __future__ import annotations

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


class BenchmarkError(RosaError, ValueError):
    """A benchmark cannot run with these arguments; the message says what is accepted."""
