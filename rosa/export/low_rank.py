"""Low-rank factors of a weight difference by truncated singular value decomposition.

Pure functions of tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDINGS = 8
"""Largest accepted ratio of accumulated rounding noise to one rounding's; it grows with the root of their count."""


class LowRank(NamedTuple):
    """``difference ~ left @ right``; float64."""

    left: Tensor
    """(out, rank)."""
    right: Tensor
    """(rank, in)."""
    dropped: float
    """Frobenius norm of the truncated part, divided by that of the difference; 0 for a difference of 0."""

    @property
    def rank(self) -> int:
        """Number of singular triplets kept."""
        return self.right.shape[0]


def noise_level(S: Tensor, aspect: float) -> float:
    """The threshold up to which singular values of a low-rank matrix count as noise, if the noise level is unknown.

    A multiple of the median singular value, which belongs to the noise if the rank is below half the shorter side
    (Gavish and Donoho, *The optimal hard threshold for singular values is 4/sqrt(3)*, 2014, equation 5).

    Args:
        S: (n,), all singular values.
        aspect: shorter side of the matrix divided by the longer one, in (0, 1].
    """
    omega = 0.56 * aspect**3 - 0.95 * aspect**2 + 1.82 * aspect + 1.43
    return omega * float(S.median())


def truncate(difference: Tensor, tolerance: float, rounding: float = 0.0) -> LowRank:
    """Approximate a weight difference by factors of the lowest rank that meets a tolerance.

    The truncated singular value decomposition is the best approximation of its rank in the Frobenius norm (Eckart and
    Young, 1936); its error is ``sqrt(s_{r+1}^2 + ... + s_n^2)``.

    Args:
        difference: (out, in), any floating dtype; computed in float64.
        tolerance: largest Frobenius norm of the truncated part, as a share of the difference's.
        rounding: level of one rounding. Singular values up to it are dropped whatever the tolerance; so are those up to
            :func:`noise_level`, capped at ``ROUNDINGS * rounding``, since each subspace visited rounds the weight anew.
    """
    U, S, Vh = torch.linalg.svd(difference.double(), full_matrices=False)
    # tails[r] is the error of rank r; summed from the smallest value up, so that small ones are not rounded away.
    tails = torch.cat([S.square().flip(0).cumsum(0).flip(0), S.new_zeros(1)]).sqrt()
    needed = int((tails > tolerance * tails[0]).sum())
    looks_like_noise = noise_level(S, min(difference.shape) / max(difference.shape))
    noise = min(max(looks_like_noise, rounding), ROUNDINGS * rounding)
    rank = min(needed, int((noise < S).sum()))
    root = S[:rank].sqrt()  # on both sides, so that the factors' entries have the same order of magnitude
    dropped = float(tails[rank] / tails[0]) if tails[0] > 0 else 0.0
    return LowRank(U[:, :rank] * root, root[:, None] * Vh[:rank], dropped)
