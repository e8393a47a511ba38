"""Selected eigenvectors of a symmetric matrix, at any positions of its spectrum, cheaper than a full decomposition.

::

    G = Q T Q^T               one reduction to tridiagonal form               LAPACK's sytrd
    T z = t z                 the requested eigenvalues t                     stebz, or sterf for many
                              one inverse iteration for each of them          stein
    v = Q z                   Q applied to those r vectors only               ormtr

A full decomposition starts with the same reduction, but then computes n vectors, instead of r, and multiplies them by
Q. Each step is a function, so that it can be timed. On the CPU, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rosa.adapters.linalg.lapack import routine
from rosa.errors import ConvergenceError

BISECTIONS = 1 / 32
"""Up to this share of the spectrum, bisection for single eigenvalues is faster than computing all of them."""
TOLERANCE = 1e-11
"""Largest accepted deviation from orthonormality, and largest accepted residual relative to T's largest entry."""


class Tridiagonal(NamedTuple):
    """``G = Q T Q^T``."""

    diagonal: np.ndarray
    """(n,): the diagonal of T."""
    beside: np.ndarray
    """(n - 1,): the off-diagonal of T."""
    reflectors: np.ndarray
    """(n, n): the Householder vectors, whose reflections multiply to Q, below its first subdiagonal."""
    tau: np.ndarray
    """(n - 1,): the scalars of the reflections (LAPACK's tau)."""


class Eigenpairs(NamedTuple):
    """Selected eigenvalues with their eigenvectors, and the largest eigenvalue."""

    values: np.ndarray
    """(r,)"""
    vectors: np.ndarray
    """(n, r): orthonormal columns."""
    largest: float
    """The largest eigenvalue of the matrix."""


def tridiagonalize(G: np.ndarray) -> Tridiagonal:
    """Reduce a symmetric matrix (n, n), n >= 2, of which the lower triangle is read; overwritten in Fortran order."""
    n = len(G)
    T = Tridiagonal(np.empty(n), np.empty(n - 1), np.asfortranarray(G), np.empty(n - 1))
    routine("dsytrd").with_work(b"L", n, T.reflectors, n, T.diagonal, T.beside, T.tau)
    return T


def eigenvalues(T: Tridiagonal, positions: np.ndarray) -> np.ndarray:
    """The eigenvalues (r,) at positions (r,) of the ascending spectrum, in the order of the positions.

    Raises:
        ConvergenceError: LAPACK did not converge.
    """
    n = len(T.diagonal)
    if len(positions) > BISECTIONS * n:
        values = T.diagonal.copy()
        info = routine("dsterf")(n, values, T.beside.copy())
        if info != 0:
            raise ConvergenceError(f"sterf did not converge for {info} of {n} eigenvalues")
        return values[positions]
    return np.array([_bisect(T, int(position) + 1) for position in positions])  # LAPACK counts from 1


def _bisect(T: Tridiagonal, place: int) -> float:
    n = len(T.diagonal)
    count, blocks, block_of_each, end_of_each = (np.empty(size, dtype=np.intc) for size in (1, 1, n, n))
    values, work, whole_work = np.empty(n), np.empty(4 * n), np.empty(3 * n, dtype=np.intc)
    by_position, by_block, no_bound, full_accuracy = b"I", b"E", 0.0, 0.0
    info = routine("dstebz")(
        *(by_position, by_block, n, no_bound, no_bound, place, place, full_accuracy, T.diagonal, T.beside),
        *(count, blocks, values, block_of_each, end_of_each, work, whole_work),
    )
    if info != 0 or count[0] != 1:
        raise ConvergenceError(f"stebz did not find eigenvalue {place} of {n} (info {info})")
    return float(values[0])


def inverse_iteration(T: Tridiagonal, values: np.ndarray) -> np.ndarray:
    """Orthonormal eigenvectors (n, r) of T for some of its eigenvalues (r,), which must be ascending.

    stein orthogonalizes the vectors of close eigenvalues, but may return dependent ones if T is block diagonal, or if
    eigenvalues are close in another way. The result is therefore checked.

    Raises:
        ConvergenceError: stein did not converge, or its vectors are dependent or inaccurate.
    """
    n, r = len(T.diagonal), len(values)
    # T is passed as one block even if it is block diagonal, so eigenvalues need not be assigned to blocks.
    block_of_each = np.ones(r, dtype=np.intc)
    end_of_each = np.full(1, n, dtype=np.intc)
    vectors, failed = np.empty((n, r), order="F"), np.empty(r, dtype=np.intc)
    work, whole_work = np.empty(5 * n), np.empty(n, dtype=np.intc)
    info = routine("dstein")(
        *(n, T.diagonal, T.beside, r, values, block_of_each, end_of_each, vectors, n, work, whole_work, failed)
    )
    if info != 0:
        raise ConvergenceError(f"stein did not converge for {info} of {r} eigenvectors")
    residual = T.diagonal[:, None] * vectors - vectors * values
    residual[1:] += T.beside[:, None] * vectors[:-1]
    residual[:-1] += T.beside[:, None] * vectors[1:]
    size = max(np.abs(T.diagonal).max(), np.abs(T.beside).max())
    dependent = np.abs(vectors.T @ vectors - np.eye(r)).max()
    # Written so that a NaN fails.
    if not (dependent <= TOLERANCE and np.abs(residual).max() <= TOLERANCE * size):
        raise ConvergenceError(f"stein returned dependent or wrong eigenvectors (inner product {dependent:.1e})")
    return vectors


def back_transform(T: Tridiagonal, vectors: np.ndarray) -> np.ndarray:
    """Transform eigenvectors (n, r) of the tridiagonal matrix into those of the original matrix: ``Q z``."""
    n, r = vectors.shape
    turned = np.array(vectors, order="F")
    routine("dormtr").with_work(b"L", b"L", b"N", n, r, T.reflectors, n, T.tau, turned, n)
    return turned


def chosen_eigenpairs(G: np.ndarray, positions: np.ndarray) -> Eigenpairs:
    """The eigenpairs of a symmetric matrix at given positions of its ascending spectrum, in the order of the positions.

    Args:
        G: (n, n) float64, n >= 2; only the lower triangle is read; overwritten if in Fortran order.
        positions: (r,) distinct integers, 0 to n - 1.

    Raises:
        ConvergenceError: use a full decomposition instead; G may have been overwritten.
    """
    T = tridiagonalize(G)
    order = np.argsort(positions)
    values = eigenvalues(T, np.append(positions[order], len(G) - 1))
    ascending = back_transform(T, inverse_iteration(T, values[:-1]))
    back = np.argsort(order)
    return Eigenpairs(values[back], ascending[:, back], float(values[-1]))
