"""RoSA's product as one operator, for ``torch.compile``.

``torch.compile`` cannot trace sparse tensors, nor branches on whether a support is chosen or gradients are collected;
and of a traced product, it would keep W + S for the backward pass. So the product is a single custom operator of x and
``values``. At run time it looks its layer up by a number and computes what :class:`SparseLinear` does. Choosing a
support or starting to collect gradients therefore leaves the compiled graph as it is.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import Tensor

from rosa.adapters.sparse import SparsePart, applied, gradients


class Layer(Protocol):
    """A layer with a sparse part."""

    def part(self) -> SparsePart:
        """The current inputs of the layer's product other than x, ``values`` and b."""
        ...


_layers: weakref.WeakValueDictionary[int, Layer] = weakref.WeakValueDictionary()
_unused = itertools.count()


def numbered(layer: Layer) -> Tensor:
    """A unique number by which the operators find a layer while it exists; (), int64, on the CPU.

    A tensor, because a Python number would be compiled into the graph, and layers that share code could not share it.
    """
    number = next(_unused)
    _layers[number] = layer
    return torch.tensor(number, device="cpu")


@torch.library.custom_op("rosa::sparse_linear", mutates_args=())
def sparse_linear(x: Tensor, values: Tensor, bias: Tensor | None, number: Tensor, out_features: int) -> Tensor:
    """:class:`SparseLinear` of the layer of this number; (…, in) -> (…, out)."""
    del out_features  # for the description below
    part = _layers[int(number)].part()
    return applied(x, values, bias, part.support, part.read())


@sparse_linear.register_fake
def _(x: Tensor, values: Tensor, bias: Tensor | None, number: Tensor, out_features: int) -> Tensor:
    del values, bias, number  # only shapes are described here
    return x.new_empty(*x.shape[:-1], out_features)


@torch.library.custom_op("rosa::sparse_linear_backward", mutates_args=())
def sparse_linear_backward(
    grad: Tensor, x: Tensor, values: Tensor, number: Tensor, needs_x: bool, needs_values: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x and ``values``; one that is not needed is empty."""
    found = gradients(grad, x, values, _layers[int(number)].part(), needs_x, needs_values)
    grad_x, grad_values = (grad.new_empty(0) if one is None else one for one in found)
    return grad_x, grad_values


@sparse_linear_backward.register_fake
def _(
    grad: Tensor, x: Tensor, values: Tensor, number: Tensor, needs_x: bool, needs_values: bool
) -> tuple[Tensor, Tensor]:
    del number
    grad_x = x.new_empty(x.shape) if needs_x else grad.new_empty(0)
    return grad_x, torch.empty_like(values) if needs_values else grad.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, values, _, number, _ = inputs
    ctx.save_for_backward(x, values, number)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, number = ctx.saved_tensors
    needs_x, needs_values, needs_bias = ctx.needs_input_grad[:3]
    grad_x, grad_values = sparse_linear_backward(grad, x, values, number, needs_x, needs_values)
    return (
        grad_x if needs_x else None,
        grad_values if needs_values else None,
        grad.flatten(0, -2).sum(0) if needs_bias else None,
        None,
        None,
    )


sparse_linear.register_autograd(_backward, setup_context=_keep)
