"""LAPACK's routines against SciPy's own Python functions, and that they release Python's lock (GIL)."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from scipy.linalg import lapack

from rosa.adapters.linalg.lapack import routine

N = 40


def symmetric(n: int) -> np.ndarray:
    G = np.random.default_rng(0).standard_normal((n, n))
    return np.asfortranarray(G + G.T)


def test_a_reduction_is_scipys() -> None:
    G = symmetric(N)
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(G, lower=1)
    found = G.copy(order="F"), np.empty(N), np.empty(N - 1), np.empty(N - 1)
    assert routine("dsytrd").with_work(b"L", N, found[0], N, *found[1:]) == 0
    # Another size of the work array is another order of the sums.
    for ours, expected in zip(found, (reflectors, diagonal, beside, factors), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_info_is_lapacks() -> None:
    """A positive info reports no convergence within 30 sweeps, as for a matrix of NaN."""
    diagonal, beside = np.arange(4.0), np.ones(3)
    expected, info = lapack.dsterf(diagonal, beside)
    assert (routine("dsterf")(4, diagonal, beside), info) == (0, 0)
    np.testing.assert_array_equal(diagonal, expected)
    broken = np.full(4, np.nan), np.full(3, np.nan)
    assert routine("dsterf")(4, *broken) == lapack.dsterf(*broken)[1] > 0


@pytest.mark.parametrize(
    ("diagonal", "message"),
    [
        (np.ones(4, dtype=np.float32), "dsterf, argument 1: an array of float32, strides (4,)"),
        (np.ones(8)[::2], "dsterf, argument 1: an array of float64, strides (16,); expected float64 in Fortran order"),
    ],
)
def test_memory_that_lapack_would_misread_is_refused(diagonal: np.ndarray, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        routine("dsterf")(4, diagonal, np.ones(3))


def test_another_number_of_arguments_is_refused() -> None:
    with pytest.raises(AssertionError, match="dsterf: 2 arguments, expected 3"):
        routine("dsterf")(4, np.ones(4))


def test_other_threads_go_on_meanwhile() -> None:
    """Another thread sees a partial result; if the routine held the lock, it would see all or nothing."""
    n, diagonals, half_written, done = 600, [np.zeros(600)], threading.Event(), threading.Event()

    def looks() -> None:
        while not done.is_set():
            first, last = diagonals[-1][[0, -1]]
            if not np.isnan(first) and np.isnan(last):
                half_written.set()
            time.sleep(0.001)

    thread = threading.Thread(target=looks)
    thread.start()
    try:
        for _ in range(50):  # on a busy machine the other thread may be too late
            G = symmetric(n)
            diagonals.append(np.full(n, np.nan))
            routine("dsytrd").with_work(b"L", n, G, n, diagonals[-1], np.empty(n - 1), np.empty(n - 1))
            if half_written.is_set():
                break
    finally:
        done.set()
        thread.join()
    assert half_written.is_set()
