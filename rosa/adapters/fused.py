"""A linear layer with a pair of factors beside it as one differentiable function.

Left to autograd, the layer and the factors each compute a gradient of the input, and a further pass over the tokens
adds the two; the output, too, is written once more than necessary. Here the second product of each pair adds to the
first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from rosa.adapters.base import LinearLayer, is_bare, is_stock, is_transformed
from rosa.adapters.linalg.precision import without_autocast


def can_fuse(x: Tensor, layer: LinearLayer, A: Tensor, B: Tensor) -> bool:
    """Whether :class:`FactoredLinear` may take the place of a layer's own call and the factors' products.

    Not where ``torch.compile`` traces, which fuses by itself, nor where the call needs rules for a function of one's
    own (:func:`is_transformed`) or may need them; nor for tensors of other kinds (sharded, sparse), whose products are
    the business of their class. Not where A alone trains: autograd then keeps the small ``x B^T``, and this function
    would keep x. Nor with hooks of all modules, by which profilers list the layers.

    Args:
        x: (…, in).
        layer: the layer (in -> out).
        A: (out, r).
        B: (r, in).
    """
    if torch.compiler.is_compiling() or is_transformed() is not False:
        return False
    hooked = getattr(modules, "_has_any_global_hook", None)  # private: without it, there may be such hooks
    if hooked is None or hooked() or (A.requires_grad and not B.requires_grad):
        return False
    if not is_stock(layer) or not is_bare(layer):
        return False
    dense = all(type(one) in (Tensor, nn.Parameter) for one in (x, layer.weight, A, B))
    return dense and x.layout == torch.strided and x.ndim > 0


class FactoredLinear(torch.autograd.Function):
    """``x W^T + b + (x B^T) A^T``, differentiable in x, b, A and B; not in W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
        """(…, in) -> (…, out), all of one dtype.

        Args:
            ctx: of PyTorch.
            x: the input.
            weight: W (out, in).
            bias: b (out,), or None.
            A: (out, r).
            B: (r, in).
        """
        rows = x.reshape(-1, x.shape[-1])
        out = x.new_empty(*x.shape[:-1], len(A))  # and not a view, which callers could not change in place
        flat = out.view(-1, len(A))
        if bias is None:
            torch.mm(rows, weight.T, out=flat)
        else:
            torch.addmm(bias, rows, weight.T, out=flat)
        low = rows @ B.T  # after the layer's own product, whose errors name the layer's shape
        flat.addmm_(low, A.T)
        needs_x, _, _, needs_a, needs_b = ctx.needs_input_grad
        ctx.save_for_backward(
            x if needs_a or needs_b else None,
            weight if needs_x else None,
            A if needs_x or needs_b else None,
            B if needs_x or needs_a else None,
            low if needs_a else None,
        )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, the bias and the factors."""
        with without_autocast(grad.device.type):  # whose casts in-place products do not share
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, A, B, low = ctx.saved_tensors
    needs_x, _, needs_bias, needs_a, needs_b = ctx.needs_input_grad
    if needs_a and torch.is_grad_enabled():  # a gradient of this gradient: the factors' own product depends on x and B
        low = x.reshape(-1, x.shape[-1]) @ B.T
    rows = grad.reshape(-1, grad.shape[-1])
    grad_low = rows @ A if needs_x or needs_b else None
    grad_x = None
    if needs_x and grad_low is not None:
        grad_x = (rows @ weight).addmm_(grad_low, B).view(*grad.shape[:-1], B.shape[1])
    return (
        grad_x,
        None,
        rows.sum(0) if needs_bias else None,
        rows.T @ low if needs_a else None,
        grad_low.T @ x.reshape(-1, x.shape[-1]) if needs_b and grad_low is not None else None,
    )
