"""Selected eigenvectors against NumPy's full decomposition, on spectra that are easy and hard for inverse iteration."""

from __future__ import annotations

import numpy as np
import pytest

from rosa.adapters.linalg import eigenvectors
from rosa.adapters.linalg.eigenvectors import (
    Tridiagonal,
    back_transform,
    chosen_eigenpairs,
    inverse_iteration,
    tridiagonalize,
)
from rosa.errors import ConvergenceError

N = 60
SPECTRA = {
    "spread": np.geomspace(1e-6, 1.0, N),
    "even": np.arange(N) + 1.0,
    "repeated": np.ones(N),
    "two clusters": np.repeat([1.0, 2.0], N // 2),
    "near clusters": np.repeat([1.0, 2.0], N // 2) + np.arange(N) * 1e-13,
    "deficient": np.maximum(np.arange(N) - N // 2, 0.0),
    "tiny": np.geomspace(1e-66, 1e-60, N),
    "huge": np.geomspace(1e54, 1e60, N),
}


def symmetric(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with these eigenvalues and random eigenvectors, in Fortran order."""
    n = len(values)
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    G = (Q * values) @ Q.T
    return np.asfortranarray((G + G.T) / 2)


def some_positions(r: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(N)[:r]


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("r", [1, 2, 7, N])
def test_pairs_are_eigenpairs_at_the_positions_asked_for(spectrum: str, r: int) -> None:
    G = symmetric(SPECTRA[spectrum])
    size = np.abs(SPECTRA[spectrum]).max()
    positions = some_positions(r)
    pairs = chosen_eigenpairs(G.copy(order="F"), positions)
    np.testing.assert_allclose(pairs.values, np.sort(SPECTRA[spectrum])[positions], atol=1e-13 * size)
    assert pairs.largest == pytest.approx(size)
    np.testing.assert_allclose(G @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-12 * size)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(r), atol=1e-11)


@pytest.mark.parametrize("spectrum", ["spread", "even"])
def test_vectors_of_separate_values_are_numpys(spectrum: str) -> None:
    G = symmetric(SPECTRA[spectrum])
    positions = some_positions(9)
    expected = np.linalg.eigh(G).eigenvectors[:, positions]
    found = chosen_eigenpairs(G.copy(order="F"), positions).vectors
    overlap = np.sum(found * expected, axis=0)
    np.testing.assert_allclose(found * np.sign(overlap), expected, atol=1e-8 if spectrum == "spread" else 1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_smallest_matrices(n: int) -> None:
    G = symmetric(np.arange(n) + 1.0)
    pairs = chosen_eigenpairs(G.copy(order="F"), np.arange(n)[::-1])
    np.testing.assert_allclose(pairs.values, np.arange(n, 0, -1.0))
    np.testing.assert_allclose((pairs.vectors * pairs.values) @ pairs.vectors.T, G, atol=1e-13)


def test_only_the_lower_triangle_is_read() -> None:
    G = symmetric(SPECTRA["even"])
    positions = some_positions(4)
    expected = chosen_eigenpairs(G.copy(order="F"), positions)
    G[np.triu_indices(N, 1)] = np.nan
    found = chosen_eigenpairs(G, positions)
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_bisection_and_the_whole_spectrum_find_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    T = tridiagonalize(symmetric(SPECTRA["spread"]))
    positions = some_positions(8)
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(eigenvectors, "BISECTIONS", share)
        found.append(eigenvectors.eigenvalues(T, positions))
    np.testing.assert_allclose(*found, atol=1e-15)
    np.testing.assert_allclose(found[0], SPECTRA["spread"][positions], atol=1e-15)


def test_the_reduction_is_an_orthogonal_one() -> None:
    G = symmetric(SPECTRA["even"])
    T = tridiagonalize(G.copy(order="F"))
    Q = back_transform(T, np.eye(N))
    np.testing.assert_allclose(Q.T @ Q, np.eye(N), atol=1e-13)
    tridiagonal = np.diag(T.diagonal) + np.diag(T.beside, 1) + np.diag(T.beside, -1)
    np.testing.assert_allclose(Q @ tridiagonal @ Q.T, G, atol=1e-11)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_what_inverse_iteration_cannot_do_is_said(value: float) -> None:
    with pytest.raises(ConvergenceError):
        chosen_eigenpairs(np.full((8, 8), value, order="F"), np.array([2, 5]))


def test_wrong_eigenvalues_give_no_vectors() -> None:
    """The check of the result refuses a value that lies between two eigenvalues."""
    T = Tridiagonal(np.arange(6.0), np.zeros(5), np.zeros((6, 6)), np.zeros(5))
    np.testing.assert_allclose(np.abs(inverse_iteration(T, np.array([2.0]))[:, 0]), np.eye(6)[2], atol=1e-12)
    with pytest.raises(ConvergenceError):
        inverse_iteration(T, np.array([2.5]))


def test_the_same_matrix_gives_the_same_bits() -> None:
    G = symmetric(SPECTRA["spread"])
    first, second = (chosen_eigenpairs(G.copy(order="F"), some_positions(5)) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, second.vectors)
