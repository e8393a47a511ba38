"""The split against NumPy's float64 SVD, and the draws against their distributions."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rosa.adapters.subspace import draw_indices, resolve_rank, split

SHAPES = [(24, 24), (40, 16), (16, 40), (1, 9), (9, 1), (1, 1)]


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
def test_factors_are_the_chosen_singular_triplets(shape: tuple[int, int], dtype: torch.dtype) -> None:
    W = matrix(*shape).to(dtype)
    U, S, Vh = np.linalg.svd(W.double().numpy(), full_matrices=False)
    for chosen in chosen_of(min(shape)):
        A, B = (factor.numpy() for factor in split(W, chosen))
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
        A, B = (factor.numpy() for factor in split(W, chosen))
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
    assert largest_angle(split(W, chosen).B.numpy().T, Vh[-1:].T) < 1e-6

    small = W if shape[0] <= shape[1] else W.T
    blurred = torch.linalg.eigh(small @ small.T).eigenvectors[:, :1]
    truth = torch.linalg.svd(small.double()).U[:, -1:].numpy()
    assert largest_angle(blurred.double().numpy(), truth) > 1e-2  # so the case is one that tells the two apart


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["full", "deficient", "zero", "ill-conditioned"])
def test_right_vectors_are_orthonormal_and_the_projection_exact(shape: tuple[int, int], kind: str) -> None:
    """What makes the split a split of W: B B^T = 1 and A = W B^T, also where singular values vanish."""
    n = min(shape)
    W = matrix(*shape)
    if kind == "deficient":
        keep = max(n // 3, 1)
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        W = (U[:, :keep] * S[:keep]) @ Vh[:keep]
    elif kind == "zero":
        W = torch.zeros(shape)
    elif kind == "ill-conditioned":
        W = matrix(*shape, condition=1e12)
    W = W.double()
    for chosen in chosen_of(n):
        A, B = split(W, chosen)
        assert torch.isfinite(A).all()
        torch.testing.assert_close(B @ B.T, torch.eye(len(chosen), dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(A, W @ B.T, atol=1e-10, rtol=0)
    # All the directions together are the whole weight.
    A, B = split(W, torch.arange(n))
    torch.testing.assert_close(A @ B, W, atol=1e-12, rtol=0)


def test_rank_deficient_directions_are_told_from_the_others() -> None:
    """Indices count a descending spectrum: beyond the rank the left factors are zero, before it they are not."""
    for shape in [(30, 12), (12, 30)]:
        U, S, Vh = torch.linalg.svd(matrix(*shape), full_matrices=False)
        W = (U[:, :5] * S[:5]) @ Vh[:5]
        norms = split(W, torch.arange(12)).A.norm(dim=0)
        torch.testing.assert_close(norms[:5], S[:5], rtol=1e-9, atol=0)
        assert float(norms[5:].max()) < 1e-7


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
    """Uniform single indices are not enough: a random window has nearly that, and few of the subsets."""
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
    with pytest.raises(ValueError, match="'middle'.*random, top, bottom or window"):
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
