"""A few eigenvectors of a symmetric matrix, at any places of its spectrum, for less than the cost of all of them.

::

    G = Q T Q^T               one reduction to tridiagonal form               LAPACK's sytrd
    T z = t z                 the eigenvalues t asked for                     stebz, or sterf for many
                              one inverse iteration for each of them          stein
    v = Q z                   Q applied to those r vectors alone              ormtr

A full decomposition goes through the same reduction and then computes, and multiplies by Q, n vectors where r are
wanted. The steps are functions of their own, so that each can be timed. On the CPU, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rosa.adapters.linalg.lapack import routine
from rosa.errors import ConvergenceError

BISECTIONS = 1 / 32
"""Up to this share of the spectrum, bisecting for each eigenvalue alone is faster than computing all of them."""
TOLERANCE = 1e-11
"""Largest inner product between two eigenvectors, and largest residual relative to the matrix, to be accepted."""


class Tridiagonal(NamedTuple):
    """``G = Q T Q^T``."""

    diagonal: np.ndarray
    """(n,): of T."""
    beside: np.ndarray
    """(n - 1,): of T, above and below the diagonal."""
    reflectors: np.ndarray
    """(n, n): below its first subdiagonal, the vectors of the Householder reflections whose product is Q."""
    factors: np.ndarray
    """(n - 1,): of the reflections."""


class Eigenpairs(NamedTuple):
    """Some eigenvalues, their eigenvectors, and the size of the others."""

    values: np.ndarray
    """(r,)"""
    vectors: np.ndarray
    """(n, r): orthonormal columns."""
    largest: float
    """The largest eigenvalue of all."""


def tridiagonalize(G: np.ndarray) -> Tridiagonal:
    """Reduce a symmetric matrix (n, n), n >= 2, given by its lower triangle; in Fortran order it is overwritten."""
    n = len(G)
    T = Tridiagonal(np.empty(n), np.empty(n - 1), np.asfortranarray(G), np.empty(n - 1))
    routine("dsytrd").with_work(b"L", n, T.reflectors, n, T.diagonal, T.beside, T.factors)
    return T


def eigenvalues(T: Tridiagonal, positions: np.ndarray) -> np.ndarray:
    """The eigenvalues at some positions of the ascending spectrum, in the order of the positions.

    Raises:
        ConvergenceError: LAPACK gives up.
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
    """Eigenvectors (n, r) of the tridiagonal matrix itself for some of its eigenvalues, given in ascending order.

    Where eigenvalues are close, stein makes their vectors orthogonal to each other as it goes; where T falls apart into
    blocks or they are close in another way, it may still return dependent ones. So the result is checked.

    Raises:
        ConvergenceError: no vectors, or not independent ones, for some of the values.
    """
    n, r = len(T.diagonal), len(values)
    # T as one block, whether or not it falls apart: values of different blocks need not be told apart for this.
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
    """Eigenvectors (n, r) of the tridiagonal matrix turned into those of the matrix it came from: ``Q z``."""
    n, r = vectors.shape
    turned = np.array(vectors, order="F")
    routine("dormtr").with_work(b"L", b"L", b"N", n, r, T.reflectors, n, T.factors, turned, n)
    return turned


def chosen_eigenpairs(G: np.ndarray, positions: np.ndarray) -> Eigenpairs:
    """The eigenpairs at some positions of the ascending spectrum of a symmetric matrix, in the order of the positions.

    Args:
        G: (n, n) float64, n >= 2, its lower triangle; overwritten if in Fortran order.
        positions: (r,) distinct.

    Raises:
        ConvergenceError: a full decomposition is needed; G may have been overwritten.
    """
    T = tridiagonalize(G)
    order = np.argsort(positions)
    values = eigenvalues(T, np.append(positions[order], len(G) - 1))
    ascending = back_transform(T, inverse_iteration(T, values[:-1]))
    back = np.argsort(order)
    return Eigenpairs(values[back], ascending[:, back], float(values[-1]))
