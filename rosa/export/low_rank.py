"""The shortest pair of factors that stands for a change of weights: a truncated singular value decomposition.

Pure functions of tensors: no module, no state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDINGS = 8
"""How far the noise of many roundings may exceed the level of one; it grows with the root of their number."""


class LowRank(NamedTuple):
    """``difference ~ left @ right``; float64."""

    left: Tensor
    """(out, rank)."""
    right: Tensor
    """(rank, in)."""
    dropped: float
    """Frobenius norm of what is left out, as a share of the whole difference's; 0 for a difference of 0."""

    @property
    def rank(self) -> int:
        """How many singular triplets were kept."""
        return self.right.shape[0]


def noise_level(S: Tensor, aspect: float) -> float:
    """The singular value below which a low-rank matrix in noise of unknown size is noise.

    A multiple of the median singular value, which is one of the noise while the rank is below half (Gavish and Donoho,
    *The optimal hard threshold for singular values is 4/sqrt(3)*, 2014, equation 5).

    Args:
        S: (n,), every singular value.
        aspect: the shorter side of the matrix over the longer one, in (0, 1].
    """
    omega = 0.56 * aspect**3 - 0.95 * aspect**2 + 1.82 * aspect + 1.43
    return omega * float(S.median())


def truncate(difference: Tensor, tolerance: float, rounding: float = 0.0) -> LowRank:
    """The factors of lowest rank that keep a difference to a tolerance: no others of that rank are closer to it.

    Truncating the singular value decomposition is optimal in the Frobenius norm (Eckart and Young, 1936). What is
    dropped is ``sqrt(s_{r+1}^2 + ... + s_n^2)``.

    Args:
        difference: (out, in), any floating dtype; computed in float64.
        tolerance: the largest Frobenius norm of what is left out, as a share of the difference's.
        rounding: singular values that one rounding explains are dropped whatever the tolerance; so are those that look
            like noise, up to ``ROUNDINGS`` times as large, since every subspace visited has rounded the weight anew.
    """
    U, S, Vh = torch.linalg.svd(difference.double(), full_matrices=False)
    # tails[r] is what a truncation to rank r drops; summed from the smallest, so that no small one is lost.
    tails = torch.cat([S.square().flip(0).cumsum(0).flip(0), S.new_zeros(1)]).sqrt()
    needed = int((tails > tolerance * tails[0]).sum())
    looks_like_noise = noise_level(S, min(difference.shape) / max(difference.shape))
    noise = min(max(looks_like_noise, rounding), ROUNDINGS * rounding)
    rank = min(needed, int((noise < S).sum()))
    root = S[:rank].sqrt()  # half of the size on either side, so that both factors have entries of one order
    dropped = float(tails[rank] / tails[0]) if tails[0] > 0 else 0.0
    return LowRank(U[:, :rank] * root, root[:, None] * Vh[:rank], dropped)
