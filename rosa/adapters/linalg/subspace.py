"""The linear algebra of ROSA: draw singular directions of a weight, and factorize the weight along them.

Pure functions of tensors. A weight ``W`` is (out, in) with ``W = U S V^T`` and ``n = min(out, in)`` singular triplets
in descending order. For chosen indices ``i`` the factors are ``A = U_i S_i`` (out, r) and ``B = V_i^T`` (r, in), with
``W_f = W - A B``, so that ``W_f + A B = W`` (arXiv 2407.07802, section 3).

Because ``A = W V_i``, the factorization is exact for any orthonormal ``V_i``: the eigenvectors of the smaller Gram
matrix, which cost a fraction of an SVD, serve as singular vectors. The Gram matrix squares the condition number, so it
is computed in float64, where every direction of a float32 weight survives (float32 would lose the smallest ones).
"""

from __future__ import annotations

import functools
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from rosa.adapters.linalg.eigenvectors import Eigenpairs, chosen_eigenpairs
from rosa.config.method import SAMPLINGS, SOLVERS, SPLITS
from rosa.errors import AdapterError, ConvergenceError, InterfaceError

SMALLEST_RATIO = 1e-6
"""The Gram matrix is used for singular values above this share of the largest.

It gives a direction of relative size s with an error of about eps / s of its distance to the others: 2e-10 at this
share, where float32's rounding of the weight already leaves it uncertain by 6e-8. Below this share, the eigenvalue s^2
is close to its own rounding error, and the right vectors of a wide matrix, U^T W / S, become noise.
"""
FEW = 1 / 4
"""Up to this share of all triplets, computing only the chosen eigenvectors is faster on the CPU than computing all."""
STACK_BYTES = 2**30
"""Bytes that the factorization of one stack may take on a GPU."""


class Factors(NamedTuple):
    """The factors in ``weight = frozen + A @ B``: A (out, r) and B (r, in), or stacks of them."""

    A: Tensor
    B: Tensor


def resolve_rank(rank: int | float, out_features: int, in_features: int) -> int:
    """The integer rank for a weight of this shape; a float is a share of ``min(out, in)``, rounded down.

    Raises:
        AdapterError: the rank is below 1 or above ``min(out, in)``.
    """
    full = min(out_features, in_features)
    # 0.29 * 100 is 28.999... in floating point; 29 is meant.
    resolved = int(rank * full + 1e-9) if isinstance(rank, float) else rank
    if not 1 <= resolved <= full:
        share = f" (a share of {full}) is {resolved}" if isinstance(rank, float) else ""
        raise AdapterError(f"rank {rank}{share}: expected 1 to min(out, in) = {full}")
    return resolved


def draw_indices(n: int, r: int, sampling: str, generator: torch.Generator | None = None) -> Tensor:
    """Draw ``r`` of ``n`` singular triplets; indices ascend from the largest singular value, 0.

    Args:
        n: number of triplets.
        r: how many to choose, 1 to n.
        sampling: ``random``, a uniform subset without replacement (the paper's method); ``top`` or ``bottom``, the
            largest or smallest; ``window``, a contiguous block with each of its ``n - r + 1`` starts equally likely.
        generator: CPU generator; None for PyTorch's global one.

    Returns:
        (r,) int64 on the CPU.

    Raises:
        AdapterError: r out of range, or an unknown sampling.
    """
    if not 1 <= r <= n:
        raise AdapterError(f"cannot draw r={r} of n={n} singular triplets")
    if sampling == "random":
        return torch.randperm(n, generator=generator, device="cpu")[:r].sort().values
    if sampling == "top":
        return torch.arange(r, device="cpu")
    if sampling == "bottom":
        return torch.arange(n - r, n, device="cpu")
    if sampling == "window":
        start = int(torch.randint(n - r + 1, (1,), generator=generator, device="cpu"))
        return torch.arange(start, start + r, device="cpu")
    raise AdapterError(f"sampling={sampling!r}: expected {', '.join(SAMPLINGS)}")


def factorize_along(weight: Tensor, indices: Tensor, solver: str = "auto", form: str = "one_sided") -> Factors:
    """Factors of the chosen singular triplets, on the weight's device; ``A B`` is the weight's part along them.

    Layers of equal shape can be passed as a stack: one batched eigendecomposition on a GPU; on the CPU a thread for
    each layer, at most as many as PyTorch uses. Working memory is proportional to the stack: see
    :func:`working_bytes` and :func:`layers_at_once`.

    Args:
        weight: (out, in), or a stack (k, out, in); any floating dtype and strides; computed in float64.
        indices: (r,), or (k, r) for a stack: distinct positions in the descending spectrum, in any order.
        solver: ``svd``, a full singular value decomposition; ``gram``, eigenvectors of the smaller Gram matrix, on the
            CPU only the chosen ones if they are few (``FEW``); ``auto``, ``gram``, but ``svd`` for weights with a
            chosen singular value too small for it (``SMALLEST_RATIO``).
        form: ``one_sided``, ``A = U S`` and ``B = V^T``, whose rows are orthonormal; ``symmetric``, ``A = U S^(1/2)``
            and ``B = S^(1/2) V^T``, both zero where S is.

    Returns:
        A (out, r) and B (r, in), or (k, out, r) and (k, r, in), in float64. Each triplet's sign is arbitrary.

    Raises:
        AdapterError: an unknown solver or form, or indices that do not fit the weight.
        torch.linalg.LinAlgError: no convergence, or ``solver="gram"`` is inaccurate for a weight.
    """
    for name, given, known in (("solver", solver, SOLVERS), ("form", form, SPLITS)):
        if given not in known:
            raise AdapterError(f"{name}={given!r}: expected {', '.join(known)}")
    _check_indices(indices, weight)
    if weight.ndim == 2:
        factors = factorize_along(weight[None], indices[None], solver, form)
        return Factors(factors.A[0], factors.B[0])
    chosen = indices.to(weight.device)
    A, B = (_factors_on_threads if weight.device.type == "cpu" else _factors)(weight, chosen, solver)
    if form == "one_sided":
        return Factors(A, B)
    root = A.norm(dim=1, keepdim=True).sqrt()
    return Factors(torch.where(root > 0, A / root, 0.0), root.mT * B)


def exactness(weight: Tensor, frozen: Tensor, A: Tensor, B: Tensor) -> float:
    """The relative error of ``frozen + A B``: Frobenius norm of its difference to the weight, over the weight's norm.

    For matrices or stacks of them, in float64. For a zero weight: 0 if the difference is 0, else infinity.
    """
    W = weight.double()
    difference = float((frozen.double() + A.double() @ B.double() - W).norm())
    size = float(W.norm())
    if size == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / size


def rounding_level(weight: Tensor) -> float:
    """A bound on the singular values that rounding a weight to its dtype adds to a difference of weights.

    Rounding errors are nearly independent, so a matrix of them has singular values up to ``sigma (sqrt(out) +
    sqrt(in))``, where ``sigma`` is the error of one entry (Davidson and Szarek, 2001, theorem II.13). One rounding has
    a ``sigma`` of about a quarter of the dtype's spacing at the weight's root mean square; this uses the whole spacing.

    Args:
        weight: (out, in), in the dtype in which it is stored.
    """
    rows, columns = weight.shape
    root_mean_square = float(weight.double().norm()) / math.sqrt(rows * columns)
    return torch.finfo(weight.dtype).eps * root_mean_square * (math.sqrt(rows) + math.sqrt(columns))


def layers_at_once(out_features: int, in_features: int, device: torch.device) -> int:
    """The number of layers of equal shape to pass to :func:`factorize_along` in one stack.

    On a GPU as many as fit in ``STACK_BYTES``, at least 1; on the CPU one for each of PyTorch's threads.
    """
    if device.type == "cpu":
        return torch.get_num_threads()
    return max(1, STACK_BYTES // working_bytes(out_features, in_features, device.type))


def working_bytes(out_features: int, in_features: int, device_type: str) -> int:
    """Bytes that :func:`factorize_along` needs for a layer: its weight in float64, and Gram-sized matrices.

    On the CPU that is one, which its reduction overwrites. On a GPU there are also the eigenvectors, the solver's copy
    and its workspace; on the CPU too where all vectors are computed, for many triplets or tiny singular values.
    """
    n = min(out_features, in_features)
    matrices = 1 if device_type == "cpu" else 4
    return 8 * (out_features * in_features + matrices * n * n)


def one_blas_thread() -> AbstractContextManager[object]:
    """A context that limits BLAS to one thread; by default it uses every core.

    A tridiagonal reduction synchronizes its threads at every column, so on cores shared with other processes two
    threads take many times as long as one. One thread for each layer is faster.
    """
    return _libraries().limit(limits=1, user_api="blas")


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _check_indices(indices: Tensor, weight: Tensor) -> None:
    if weight.ndim not in (2, 3) or indices.shape[:-1] != weight.shape[:-2] or indices.ndim != weight.ndim - 1:
        raise AdapterError(
            f"indices {tuple(indices.shape)} do not fit weights {tuple(weight.shape)}: expected (r,) for (out, in), "
            "or (k, r) for (k, out, in)"
        )
    n = min(weight.shape[-2:])
    for row in indices.tolist() if indices.ndim == 2 else [indices.tolist()]:
        if not row or len(set(row)) < len(row) or min(row) < 0 or max(row) >= n:
            raise AdapterError(f"indices {row}: expected at least one, distinct, from 0 to {n - 1}")


def _factors(weight: Tensor, chosen: Tensor, solver: str) -> Factors:
    """``A = U S`` (k, out, r) and ``B = V^T`` (k, r, in) of a stack (k, out, in)."""
    W = weight.double()
    V = _right_vectors_by_svd(W, chosen) if solver == "svd" else _right_vectors_by_gram(W, chosen, solver)
    return Factors(W @ V, V.mT.contiguous())


def _factors_on_threads(weight: Tensor, chosen: Tensor, solver: str) -> Factors:
    """As :func:`_factors` on the CPU, with one thread for each layer; the long operations release the GIL.

    Within these threads PyTorch is limited to one thread: its own threads keep spinning for milliseconds after each
    operation, on cores that the other layers need. A single layer gets all of PyTorch's threads.
    """
    if len(weight) == 1:
        with one_blas_thread():
            return _factors(weight, chosen, solver)
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(threads, len(weight)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        with one_blas_thread(), pool:
            layers = list(pool.map(_factors, weight[:, None], chosen[:, None], [solver] * len(weight)))
    finally:
        torch.set_num_threads(threads)  # the initializer also changed the default of later threads
    return Factors(*(torch.cat(factors) for factors in zip(*layers, strict=True)))


def _right_vectors_by_svd(W: Tensor, chosen: Tensor) -> Tensor:
    """The chosen right singular vectors (k, in, r) of a stack (k, out, in), from full SVDs."""
    return _columns(torch.linalg.svd(W, full_matrices=False).Vh.mT, chosen)


def _right_vectors_by_gram(W: Tensor, chosen: Tensor, solver: str) -> Tensor:
    """The chosen right singular vectors (k, in, r) of a stack (k, out, in), from the smaller Gram matrices.

    Layers for which these are inaccurate use an SVD.

    Raises:
        torch.linalg.LinAlgError: a Gram matrix is inaccurate and the solver is ``gram``.
    """
    values, vectors, largest = _gram_eigenpairs(W, chosen)
    if W.shape[1] < W.shape[2]:
        vectors = W.mT @ vectors  # left singular vectors become right ones, scaled by S
    # QR makes the vectors orthonormal to rounding, which makes the factorization exact.
    V = torch.linalg.qr(vectors).Q
    # A zero matrix counts as inaccurate: shares of its largest eigenvalue are undefined.
    accurate = ((values > SMALLEST_RATIO**2 * largest[:, None]) & (largest[:, None] > 0)).all(dim=1)
    for layer in torch.nonzero(~accurate).flatten().tolist():
        if solver == "gram":
            raise torch.linalg.LinAlgError(
                f"solver=gram: a chosen singular value is below {SMALLEST_RATIO:g} of the largest, where the Gram "
                "matrix is inaccurate; use solver=auto or svd"
            )
        V[layer] = _right_vectors_by_svd(W[layer, None], chosen[layer, None])[0]
    return V


def _gram_eigenpairs(W: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (k, r) and eigenvectors (k, n, r) of the smaller Gram matrices, and the largest eigenvalues (k,)."""
    tall = W if W.shape[1] >= W.shape[2] else W.mT
    n = tall.shape[2]
    # Eigenvalues are in ascending order, singular values in descending order.
    ascending = n - 1 - chosen
    if W.device.type == "cpu" and n > 1 and chosen.shape[1] <= FEW * n:
        try:
            found = [_chosen_of_gram(*layer) for layer in zip(tall.numpy(), ascending.numpy(), strict=True)]
        except InterfaceError as error:
            warnings.warn(f"a full eigendecomposition is used, which takes longer: {error}", stacklevel=2)
        except ConvergenceError:
            pass  # Fall back to the full decomposition below.
        else:
            values, vectors = (torch.from_numpy(np.stack([pairs[i] for pairs in found])) for i in range(2))
            return values, vectors, torch.tensor([pairs.largest for pairs in found], dtype=W.dtype, device=W.device)
    all_values, all_vectors = torch.linalg.eigh(tall.mT @ tall)
    return all_values.gather(1, ascending), _columns(all_vectors, ascending), all_values[:, -1]


def _chosen_of_gram(tall: np.ndarray, positions: np.ndarray) -> Eigenpairs:
    """The eigenpairs of the Gram matrix of one layer (m, n), m >= n, at positions (r,) of the ascending spectrum.

    Raises:
        ConvergenceError: as :func:`chosen_eigenpairs`.
    """
    # NumPy computes only one triangle of a matrix times its own transpose and mirrors it. The outer transpose gives
    # Fortran order without a copy; the matrix is symmetric.
    return chosen_eigenpairs((tall.T @ tall).T, positions)


def _columns(matrices: Tensor, chosen: Tensor) -> Tensor:
    """Select columns ``chosen`` (k, r) of each matrix of a stack (k, rows, columns), as (k, rows, r)."""
    return matrices.gather(2, chosen[:, None, :].expand(-1, matrices.shape[1], -1))
