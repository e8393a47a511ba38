"""A few eigenvectors of a symmetric matrix, at any places of its spectrum, for less than the cost of all of them.

::

    G = Q T Q^T               one reduction to tridiagonal form               LAPACK's sytrd
    T z = t z                 the eigenvalues t asked for                     stebz, or sterf for many
                              one inverse iteration for each of them          stein
    v = Q z                   Q applied to those r vectors alone              ormqr

A full decomposition goes through the same reduction and then computes, and multiplies by Q, n vectors where r are
wanted. The steps are functions of their own, so that each can be timed. On the CPU, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

BLOCK = 64
"""Columns that a blocked LAPACK routine may work on at a time, for the size of its work array."""
BISECTIONS = 1 / 32
"""Up to this share of the spectrum, bisecting for each eigenvalue alone is faster than computing all of them."""
TOLERANCE = 1e-11
"""Largest inner product between two eigenvectors, and largest residual relative to the matrix, to be accepted."""


class ConvergenceError(Exception):
    """Inverse iteration found no eigenvectors, or none that are independent, for some eigenvalues."""


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
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(G, lower=1, lwork=BLOCK * n, overwrite_a=1)
    return Tridiagonal(diagonal, beside, reflectors, factors)


def eigenvalues(T: Tridiagonal, positions: np.ndarray) -> np.ndarray:
    """The eigenvalues at some positions of the ascending spectrum, in the order of the positions.

    Raises:
        ConvergenceError: LAPACK gives up.
    """
    n = len(T.diagonal)
    if len(positions) > BISECTIONS * n:
        values, info = lapack.dsterf(T.diagonal, T.beside)
        if info != 0:
            raise ConvergenceError(f"sterf did not converge for {info} of {n} eigenvalues")
        return values[positions]
    found = np.empty(len(positions))
    by_position, whole_range, full_accuracy = 2, 0.0, 0.0
    for i, position in enumerate(positions):
        place = int(position) + 1  # LAPACK counts from 1
        count, values, _, _, info = lapack.dstebz(
            T.diagonal, T.beside, by_position, whole_range, whole_range, place, place, full_accuracy, b"E"
        )
        if info != 0 or count != 1:
            raise ConvergenceError(f"stebz did not find eigenvalue {place} of {n} (info {info})")
        found[i] = values[0]
    return found


def inverse_iteration(T: Tridiagonal, values: np.ndarray) -> np.ndarray:
    """Eigenvectors (n, r) of the tridiagonal matrix itself for some of its eigenvalues, given in ascending order.

    Where eigenvalues are close, stein makes their vectors orthogonal to each other as it goes; where T falls apart into
    blocks or they are close in another way, it may still return dependent ones. So the result is checked.

    Raises:
        ConvergenceError: no vectors, or not independent ones, for some of the values.
    """
    n, r = len(T.diagonal), len(values)
    # T as one block, whether or not it falls apart: values of different blocks need not be told apart for this.
    block_of_each = np.ones(n, dtype=np.int32)
    end_of_each = np.zeros(n, dtype=np.int32)
    end_of_each[0] = n
    vectors, info = lapack.dstein(T.diagonal, T.beside, values, block_of_each, end_of_each)
    vectors = vectors[:, :r]
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
    # Each reflection leaves the first coordinate alone: below it they are those of a QR decomposition.
    turned = np.array(vectors, order="F")
    below, _, _ = lapack.dormqr(b"L", b"N", T.reflectors[1:, :-1], T.factors, turned[1:], BLOCK * vectors.shape[1])
    turned[1:] = below
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
