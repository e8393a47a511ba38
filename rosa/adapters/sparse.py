"""A linear layer whose weight has a sparse trainable part: ``y = x (W + S)^T + b``, with a backward pass of its own.

W (out, in) is frozen; S has its k entries ``values`` at the sorted flat positions ``index = row * in + column``.
Between the forward and the backward pass nothing of W's size is kept: each rebuilds W + S, uses it and frees it, and
the gradient of S is computed at its k entries only, ``dS_i = sum_n dy[n, row_i] x[n, column_i]``, as a sampled product.

In a dtype of less than 32 bits, rounding W + S would lose entries of S below the spacing at W's entries; the sparse
product is then computed separately in float32, ``x W^T + x S^T``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rosa.adapters.linalg.precision import is_narrow, readable, without_autocast

CHUNK = 2**20
"""Maximal number of elements in a temporary of the products that use index operations."""


@dataclass(frozen=True, eq=False)
class Support:
    """The positions of the nonzero entries of an (out, in) matrix."""

    index: Tensor
    """(k,) int32 or int64: sorted flat positions, ``row * in + column``."""
    shape: tuple[int, int]
    """(out, in)."""

    @property
    def rows(self) -> Tensor:
        """(k,) row of each entry."""
        return self.index // self.shape[1]

    @property
    def columns(self) -> Tensor:
        """(k,) column of each entry."""
        return self.index % self.shape[1]


def index_dtype(shape: tuple[int, int]) -> torch.dtype:
    """int32 if the flat positions of a matrix of this shape fit in it, otherwise int64."""
    return torch.int32 if shape[0] * shape[1] <= torch.iinfo(torch.int32).max else torch.int64


def dense(values: Tensor, support: Support) -> Tensor:
    """The sparse matrix as a dense one (out, in); differentiable in ``values``."""
    empty = values.new_zeros(support.shape[0] * support.shape[1])
    return empty.index_put((support.index.to(values.device).long(),), values).view(support.shape)


def rebuilt(weight: Tensor, values: Tensor, support: Support) -> Tensor:
    """``weight + S`` as a new (out, in) tensor in the layout of ``weight``, which may be a transposed view."""
    total = weight.clone()
    down, across = total.stride()
    flat = support.rows * down + support.columns * across
    total.as_strided((total.numel(),), (1,)).index_add_(0, flat, values.to(total.dtype))
    return total


def times(values: Tensor, support: Support, x: Tensor) -> Tensor:
    """``S x``: (out, in) times (in, n)."""
    if _has_kernels(x.device):
        return _csr(values, support) @ x
    rows, columns = support.rows, support.columns
    out = x.new_zeros(support.shape[0], x.shape[1])
    step = max(CHUNK // max(x.shape[1], 1), 1)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        out.index_add_(0, rows[part], x[columns[part]] * values[part, None])
    return out


def transposed_times(values: Tensor, support: Support, y: Tensor) -> Tensor:
    """``S^T y``: (in, out) times (out, n)."""
    out_features, in_features = support.shape
    rows, columns = support.rows, support.columns
    order = torch.argsort(columns, stable=True)
    flipped = Support(columns[order] * out_features + rows[order], (in_features, out_features))
    return times(values[order], flipped, y)


def sampled(left: Tensor, right: Tensor, support: Support) -> Tensor:
    """Compute only the entries of ``left^T right`` at the support; (n, out), (n, in) -> (k,)."""
    left, right = left.T.contiguous(), right.T.contiguous()
    if _has_kernels(left.device):
        pattern = _csr(left.new_zeros(len(support.index)), support)
        return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
    rows, columns = support.rows, support.columns
    step = max(CHUNK // max(left.shape[1], 1), 1)
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]
    return torch.cat([torch.linalg.vecdot(left[rows[part]], right[columns[part]]) for part in parts])


def _has_kernels(device: torch.device) -> bool:
    """Whether PyTorch has sparse products for this device."""
    return device.type == "cuda" or (device.type == "cpu" and torch.backends.mkl.is_available())


def _csr(values: Tensor, support: Support) -> Tensor:
    out_features, in_features = support.shape
    starts = torch.arange(out_features + 1, dtype=torch.int64, device=values.device) * in_features
    rows = torch.searchsorted(support.index, starts.to(support.index.dtype))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # that CSR tensors are in beta, and are not checked
        return torch.sparse_csr_tensor(
            rows.to(support.index.dtype), support.columns, values, support.shape, check_invariants=False
        )


@torch.no_grad()
def applied(x: Tensor, values: Tensor, bias: Tensor | None, support: Support | None, weight: Tensor) -> Tensor:
    """``x (W + S)^T + b``, the arguments as in :meth:`SparseLinear.forward`; (…, in) -> (…, out), contiguous."""
    with without_autocast(x.device.type):
        weight = weight.to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
        if support is None:
            return functional.linear(x, weight, bias)
        if not is_narrow(x.dtype):
            return functional.linear(x, rebuilt(weight, values, support), bias)
        y = functional.linear(x, weight, bias)
        flat = readable(x.reshape(-1, x.shape[-1]))
        return y + times(readable(values), support, flat.T).T.to(y.dtype).view(y.shape)


@torch.no_grad()
def gradients(
    grad: Tensor, x: Tensor, values: Tensor, part: SparsePart, needs_x: bool, needs_values: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x (…, in) and of ``values`` (k,) for one of the output (…, out); None if not needed.

    Passes the gradient of W + S to ``part.collect`` if it is on.
    """
    flat_x, flat = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    grad_x: Tensor | None = None
    grad_values: Tensor | None = None
    support = part.support
    with without_autocast(grad.device.type):
        if part.collect is not None:
            part.collect(readable(flat).T @ readable(flat_x))
        if needs_values:
            grad_values = torch.zeros_like(values)
            if support is not None:
                grad_values = sampled(readable(flat), readable(flat_x), support).to(values.dtype)
        if needs_x:
            weight = part.read().to(x.dtype)
            if support is None:
                grad_x = flat @ weight
            elif not is_narrow(x.dtype):
                grad_x = flat @ rebuilt(weight, values, support)
            else:
                sparse = transposed_times(readable(values), support, readable(flat).T).T
                grad_x = flat @ weight + sparse.to(x.dtype)
            grad_x = grad_x.view(x.shape)
    return grad_x, grad_values


def differentiable_gradients(grad: Tensor, x: Tensor, values: Tensor, part: SparsePart) -> tuple[Tensor, Tensor]:
    """As :func:`gradients`, by operations that autograd can differentiate again; matrices of W's size are kept."""
    flat_x, flat = readable(x.reshape(-1, x.shape[-1])), readable(grad.reshape(-1, grad.shape[-1]))
    with without_autocast(grad.device.type):
        of_weight, weight = flat.T @ flat_x, readable(part.read())
        if part.collect is not None:
            part.collect(of_weight.detach())
        grad_values = torch.zeros_like(values)
        if part.support is not None:
            weight = weight + dense(readable(values), part.support)
            grad_values = of_weight.flatten()[part.support.index.to(values.device).long()].to(values.dtype)
        return (flat @ weight).to(x.dtype).view(x.shape), grad_values


@dataclass(frozen=True, eq=False)
class SparsePart:
    """The inputs of a layer's product other than x, ``values`` and b."""

    support: Support | None
    """The positions of the values; None leaves S out, and gives ``values`` a gradient of 0."""
    read: Callable[[], Tensor]
    """Returns the frozen weight (out, in); called again in the backward pass."""
    collect: Callable[[Tensor], None] | None
    """Takes the gradient (out, in) of W + S, float32 or wider, in the backward pass; None to not compute it."""


class SparseLinear(torch.autograd.Function):
    """``x (W + S)^T + b``, differentiable in x, ``values`` and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, part: SparsePart) -> Tensor:
        """(…, in) -> (…, out), in the dtype of x.

        Args:
            ctx: of PyTorch.
            x: the input, in the dtype to compute in.
            values: (k,), float32 or wider.
            bias: (out,) or None.
            part: the rest.
        """
        # The index is saved so that PyTorch refuses a backward pass after another support was chosen.
        ctx.save_for_backward(x, values, *(() if part.support is None else (part.support.index,)))
        ctx.part = part
        return applied(x, values, bias, part.support, part.read())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, ``values`` and the bias."""
        x, values, *_ = ctx.saved_tensors
        grad_x: Tensor | None
        grad_values: Tensor | None
        if torch.is_grad_enabled():  # a gradient of these gradients
            grad_x, grad_values = differentiable_gradients(grad, x, values, ctx.part)
        else:
            grad_x, grad_values = gradients(grad, x, values, ctx.part, *ctx.needs_input_grad[:2])
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_values, grad_bias, None
