"""The four factorizations ``W -> W_f + A B`` of ROSA, compared in the paper's ablations.

=====================  ==========  ===========  =======  ======================
``factorization``      A (out, r)  B (r, in)    W_f      function at a resample
=====================  ==========  ===========  =======  ======================
``svd_equal``          U_i S_i     V_i^T        W - A B  unchanged
``svd_add``            U_i S_i     V_i^T        W        changes by A B
``random_add``         0           random       W        unchanged
``random_orthogonal``  W B^T       orthonormal  W - A B  unchanged
=====================  ==========  ===========  =======  ======================

``i`` are the drawn indices of the singular triplets. Random numbers are drawn first (:func:`draw`), on the CPU, so that
they do not depend on the device or the order in which the weights are factorized (:func:`factorize`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rosa.adapters.linalg.subspace import Factors, draw_indices, factorize_along
from rosa.config import RosaConfig


def draw(
    config: RosaConfig, out_features: int, in_features: int, rank: int, generator: torch.Generator | None
) -> Tensor:
    """Draw everything random about one layer's next factors.

    Returns:
        A CPU tensor: the indices of the singular triplets, (rank,) int64, ascending; or, for ``random_add`` and
        ``random_orthogonal``, the rows from which B is computed, (rank, in) float32.
    """
    if config.has_triplets:
        return draw_indices(min(out_features, in_features), rank, config.sampling, generator)
    if config.factorization == "random_add":
        # LoRA's initialization: Kaiming uniform with a = sqrt(5), as in loralib and peft.
        bound = 1 / math.sqrt(in_features)
        return torch.empty(rank, in_features, device="cpu").uniform_(-bound, bound, generator=generator)
    return torch.randn(rank, in_features, generator=generator, device="cpu")


def factorize(config: RosaConfig, weights: Tensor, drawn: Tensor) -> Factors:
    """Factorize a stack of weights of equal shape.

    Args:
        config: the method's options.
        weights: (k, out, in), any floating dtype.
        drawn: (k, …), the result of :func:`draw` for each.

    Returns:
        A (k, out, r) and B (k, r, in), float64, on the weights' device.

    Raises:
        torch.linalg.LinAlgError: a decomposition did not converge.
    """
    if config.has_triplets:
        return factorize_along(weights, drawn, solver=config.solver, form=config.split)
    rows = drawn.to(weights.device, torch.float64)
    if config.factorization == "random_add":
        return Factors(rows.new_zeros(*weights.shape[:2], rows.shape[1]), rows)
    # The span of Gaussian vectors is uniformly distributed over all subspaces; the Q of their QR is a basis of it.
    B = torch.linalg.qr(rows.mT).Q.mT.contiguous()
    return Factors(weights.double() @ B.mT, B)


def takes_out(config: RosaConfig) -> bool:
    """Whether A B is subtracted from the frozen weight, ``W_f = W - A B``; otherwise ``W_f = W``."""
    return config.factorization in ("svd_equal", "random_orthogonal")


def holds_pretrained_weight(config: RosaConfig) -> bool:
    """Whether A B starts as a part of the pretrained weight, so that weight decay would shrink that weight."""
    return config.factorization != "random_add"
