"""The linear algebra of ROSA: draw singular directions of a weight, and split the weight along them.

Pure functions of tensors: no module, no state. A weight ``W`` is (out, in) with ``W = U S V^T`` and
``n = min(out, in)`` singular triplets in descending order. For chosen indices ``i`` the split is ``A = U_i S_i``
(out, r), ``B = V_i^T`` (r, in) and ``W_f = W - A B``, so that ``W_f + A B = W`` (arXiv 2407.07802, section 3).

Because ``A = W V_i``, the split is exact for any orthonormal ``V_i``: the eigenvectors of the smaller Gram matrix,
which cost a fraction of an SVD, serve as singular vectors. The Gram matrix squares the condition number, so it is
formed in float64, where weights of float32 keep every direction (in float32 it turns the smallest ones at random).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_RATIO = 1e-6
"""Below this share of the largest singular value, a wide matrix's small directions come from a full SVD instead."""


class Split(NamedTuple):
    """``weight = frozen + A @ B``; float64."""

    A: Tensor
    B: Tensor


def resolve_rank(rank: int | float, out_features: int, in_features: int) -> int:
    """The whole-number rank for a weight of this shape; a float is a share of ``min(out, in)``, rounded down.

    Raises:
        ValueError: the rank is below 1 or above ``min(out, in)``.
    """
    full = min(out_features, in_features)
    # 0.29 * 100 is 28.999... in floating point, and means 29.
    resolved = int(rank * full + 1e-9) if isinstance(rank, float) else rank
    if not 1 <= resolved <= full:
        share = f" (a share of {full})" if isinstance(rank, float) else ""
        raise ValueError(f"rank {rank}{share} is {resolved}: expected 1 to min(out, in) = {full}")
    return resolved


def draw_indices(n: int, r: int, sampling: str, generator: torch.Generator | None = None) -> Tensor:
    """Choose ``r`` of ``n`` singular triplets, ascending (0 is the largest singular value).

    Args:
        n: number of triplets.
        r: how many to choose, 1 to n.
        sampling: ``random``, a uniform subset without replacement (the paper's method); ``top`` or ``bottom``, the
            largest or smallest; ``window``, a contiguous block with each of its ``n - r + 1`` starts equally likely.
        generator: CPU generator; PyTorch's global one where None.

    Returns:
        (r,) int64 on the CPU.

    Raises:
        ValueError: r out of range, or an unknown sampling.
    """
    if not 1 <= r <= n:
        raise ValueError(f"cannot draw r={r} of n={n} singular triplets")
    if sampling == "random":
        return torch.randperm(n, generator=generator)[:r].sort().values
    if sampling == "top":
        return torch.arange(r)
    if sampling == "bottom":
        return torch.arange(n - r, n)
    if sampling == "window":
        start = int(torch.randint(n - r + 1, (1,), generator=generator))
        return torch.arange(start, start + r)
    raise ValueError(f"sampling={sampling!r}: expected random, top, bottom or window")


def split(weight: Tensor, indices: Tensor, solver: str = "auto", form: str = "one_sided") -> Split:
    """Factors of the chosen singular triplets, on the weight's device.

    Args:
        weight: (out, in), or a stack (k, out, in); any floating dtype; computed in float64.
        indices: (r,), or (k, r): positions in the descending spectrum.
        solver: ``auto``, ``gram`` or ``svd``.
        form: ``one_sided``, ``A = U_i S_i`` and ``B = V_i^T``, or ``symmetric``, with ``S_i^(1/2)`` on each side.

    Raises:
        torch.linalg.LinAlgError: the eigendecomposition did not converge.
    """
    if weight.dim() == 3:
        pairs = [split(one, chosen, solver, form) for one, chosen in zip(weight, indices, strict=True)]
        return Split(torch.stack([A for A, _ in pairs]), torch.stack([B for _, B in pairs]))
    A, B = _one_sided(weight, indices)
    if form == "one_sided":
        return Split(A, B)
    root = A.norm(dim=0).sqrt()
    return Split(A / root.clamp(min=torch.finfo(root.dtype).tiny), B * root[:, None])


def _one_sided(weight: Tensor, indices: Tensor) -> Split:
    W = weight.double()
    out_features, in_features = W.shape
    chosen = indices.to(W.device)
    if in_features <= out_features:
        # eigh orders eigenvalues ascending, singular values are counted from the largest.
        V = torch.linalg.eigh(W.T @ W).eigenvectors.flip(1)[:, chosen]
        return Split(W @ V, V.T.contiguous())
    eigenvalues, eigenvectors = torch.linalg.eigh(W @ W.T)
    U = eigenvectors.flip(1)[:, chosen]
    rows = U.T @ W
    S = rows.norm(dim=1)
    largest = eigenvalues[-1].clamp(min=0).sqrt()
    if bool((SMALLEST_RATIO * largest >= S).any()):
        # U^T W / S is noise where S vanishes; only a full SVD gives orthonormal right vectors there.
        U_all, S_all, Vh_all = torch.linalg.svd(W, full_matrices=False)
        return Split(U_all[:, chosen] * S_all[chosen], Vh_all[chosen])
    return Split(U * S, rows / S[:, None])
