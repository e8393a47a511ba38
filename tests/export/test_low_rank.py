"""The truncation: optimal, with the stated error, and without the directions of rounding noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rosa.adapters.linalg.subspace import rounding_level
from rosa.export.low_rank import noise_level, truncate

pytestmark = pytest.mark.quick


def with_spectrum(S: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values, in float64."""
    stream = np.random.default_rng(seed)
    left = np.linalg.qr(stream.standard_normal((rows, len(S))))[0]
    right = np.linalg.qr(stream.standard_normal((columns, len(S))))[0]
    return torch.from_numpy(left * np.array(S) @ right.T)


SPECTRUM = [4.0, 2.0, 1.0, 0.5, 0.25]
NORM = sum(s * s for s in SPECTRUM) ** 0.5


@pytest.mark.parametrize("shape", [(9, 9), (12, 7), (7, 12)])
@pytest.mark.parametrize("rank", range(6))
def test_dropped_share_is_that_of_the_singular_values_left_out(rank: int, shape: tuple[int, int]) -> None:
    tail = sum(s * s for s in SPECTRUM[rank:]) ** 0.5 / NORM
    # A tolerance a hair above what this rank drops asks for this rank and no more.
    D = with_spectrum(SPECTRUM, *shape)
    found = truncate(D, tail * (1 + 1e-9) + 1e-12)
    assert found.rank == rank
    assert found.left.shape == (shape[0], rank)
    assert found.right.shape == (rank, shape[1])
    assert found.dropped == pytest.approx(tail, abs=1e-12)
    assert float((D - found.left @ found.right).norm() / D.norm()) == pytest.approx(tail, abs=1e-12)


def test_a_tolerance_a_hair_below_asks_for_one_more() -> None:
    tail = sum(s * s for s in SPECTRUM[3:]) ** 0.5 / NORM
    assert truncate(with_spectrum(SPECTRUM, 9, 8), tail * (1 - 1e-9)).rank == 4


def test_no_other_factors_of_the_rank_are_closer() -> None:
    """Alternating least squares does not get closer from any of several starts."""
    D = torch.randn(14, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = truncate(D, 0.6)
    assert 0 < found.rank < 10
    ours = float((D - found.left @ found.right).norm())
    for seed in range(5):
        left = torch.randn(14, found.rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for _ in range(400):
            right = torch.linalg.lstsq(left, D).solution
            left = torch.linalg.lstsq(right.T, D.T).solution.T
        theirs = float((D - left @ right).norm())
        assert theirs >= ours * (1 - 1e-12)
    assert theirs == pytest.approx(ours, rel=1e-6), "the search does reach the optimum, so the bound is tight"


def test_both_factors_have_the_same_size() -> None:
    found = truncate(with_spectrum(SPECTRUM, 9, 8), 0.0, rounding=1e-12)
    assert torch.allclose(found.left.norm(dim=0), found.right.norm(dim=1))


def test_no_difference_has_rank_0() -> None:
    found = truncate(torch.zeros(5, 4), 1e-5)
    assert (found.rank, found.dropped) == (0, 0.0)
    assert torch.equal(found.left @ found.right, torch.zeros(5, 4, dtype=torch.float64))


@pytest.mark.parametrize("roundings", [1, 10, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_noise_does_not_add_to_the_rank(roundings: int, dtype: torch.dtype) -> None:
    """A change of rank 6, above the noise and smaller than the weight, reached over many roundings."""
    stream = torch.Generator().manual_seed(0)
    W = torch.randn(96, 80, generator=stream).to(dtype)
    left, right = (with_spectrum([1.0] * 6, size, 6, seed=size) for size in (96, 80))
    final = W
    for _ in range(roundings):
        core = torch.randn(6, 6, generator=stream, dtype=torch.float64)
        final = (final.double() + 10 * rounding_level(W) * left @ core @ right.T).to(dtype)
    found = truncate(final.double() - W.double(), 0.0, rounding_level(W))
    assert found.rank == 6


def test_rounding_level_bounds_one_rounding_and_not_by_far() -> None:
    W = torch.randn(300, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        noise = W.to(dtype).double() - W
        assert 2 < rounding_level(W.to(dtype)) / float(torch.linalg.matrix_norm(noise, 2)) < 5


@pytest.mark.parametrize("shape", [(200, 200), (300, 100), (100, 400)])
def test_noise_of_unknown_size_is_told_from_a_signal(shape: tuple[int, int]) -> None:
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    S = torch.linalg.svdvals(noise)
    assert S[0] < noise_level(S, min(shape) / max(shape)) < 1.6 * S[0]


def test_a_change_of_full_rank_is_kept_whole() -> None:
    """A flat spectrum above the level of rounding is kept as a change."""
    W = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    change = 0.01 * torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    assert truncate(change, 1e-5, rounding_level(W)).rank >= 39
