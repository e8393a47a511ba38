"""A linear layer with a pair of factors beside it as one differentiable function.

Left to autograd, the layer and the factors each compute a gradient of the input, and a further pass over the tokens
adds the two; the output, too, is written once more than necessary. Here the second product of each pair adds to the
first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rosa.adapters.base import LinearLayer, is_stock


def can_fuse(layer: LinearLayer) -> bool:
    """Whether a layer's own call does nothing but multiply by its frozen weight, so that it need not be called.

    Not with hooks or a replaced ``forward``, which offloaded weights have. Not while ``torch.compile`` traces, which
    fuses by itself, nor under the transforms of ``torch.func``, for which a function of one's own would need rules.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    plain = is_stock(layer) and not any(hooks) and "forward" not in vars(layer)
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return plain and not layer.weight.requires_grad and not traced


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
        low = rows @ B.T
        out = low.new_empty(*x.shape[:-1], len(A))  # and not a view, which callers could not change in place
        flat = out.view(-1, len(A))
        if bias is None:
            torch.mm(rows, weight.T, out=flat)
        else:
            torch.addmm(bias, rows, weight.T, out=flat)
        flat.addmm_(low, A.T)
        ctx.save_for_backward(x, weight, A, B, low)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, the bias and the factors."""
        x, weight, A, B, low = ctx.saved_tensors
        needs_x, _, needs_bias, needs_a, needs_b = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient of this gradient: the factors' own product depends on x and B
            low = x.reshape(-1, x.shape[-1]) @ B.T
        rows = grad.reshape(-1, len(A))
        grad_low = rows @ A if needs_x or needs_b else None
        grad_x = None
        if needs_x and grad_low is not None:
            grad_x = (rows @ weight).addmm_(grad_low, B).view(x.shape)
        return (
            grad_x,
            None,
            rows.sum(0) if needs_bias else None,
            rows.T @ low if needs_a else None,
            grad_low.T @ x.reshape(-1, x.shape[-1]) if needs_b and grad_low is not None else None,
        )
