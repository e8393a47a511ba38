"""In which precision weights are added up, and how a narrow weight keeps what rounding takes from it.

Sums that are written back into weights are formed in float64 (:func:`exact`), which neither autocast nor TF32 touches.
A weight stored in bfloat16 or float16 would still lose half a unit of its last place at every such sum, so the loss is
kept beside it in one byte an entry (:func:`rounded`) and goes into the next sum (:func:`restored`). The two together
have 16 significant bits in bfloat16 and 19 in float16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Cast = Callable[[Tensor], Tensor]
"""Brings a stored tensor into the precision of a sum: :func:`exact` or :func:`readable`."""

STEPS = 254
"""Into how many steps one byte divides the distance between neighbouring numbers: 127 of them are half of it."""


class Rounded(NamedTuple):
    """A tensor in a narrow dtype, and what rounding took from it."""

    value: Tensor
    """In the narrow dtype."""
    rest: Tensor
    """int8: in ``1 / STEPS`` of the distance between the value and its neighbour."""


@functools.cache
def has_float64(device_type: str) -> bool:
    """Whether devices of this type (``cuda``, ``mps``) compute in float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device_type)
    except (TypeError, RuntimeError):
        return False
    return True


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the CPU where its device has none; differentiable."""
    return (tensor if has_float64(tensor.device.type) else tensor.cpu()).double()


def readable(tensor: Tensor) -> Tensor:
    """The tensor in float32, or its own dtype where that is wider; differentiable."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether a weight of this dtype loses more at a rounding than training can do without: 16-bit floats."""
    return dtype.is_floating_point and torch.finfo(dtype).bits < 32


def rounded(tensor: Tensor, dtype: torch.dtype) -> Rounded:
    """Round a float64 tensor to a narrow dtype, and keep the rest in one byte an entry."""
    value = tensor.to(dtype)
    rest = (tensor - value.double()) / _spacing(value.double(), dtype) * STEPS
    return Rounded(value, rest.round().clamp(-STEPS // 2, STEPS // 2).to(torch.int8))


def restored(value: Tensor, rest: Tensor, dtype: torch.dtype) -> Tensor:
    """What :func:`rounded` was given, up to half a step.

    Args:
        value: the rounded tensor, in a wide dtype.
        rest: its rest, in the same dtype.
        dtype: the narrow one.
    """
    return value + rest * _spacing(value, dtype) / STEPS


def _spacing(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance between each number and the next one away from zero in a narrow dtype."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(value).exponent  # value = mantissa 2^exponent, where the mantissa is 1/2 to 1
    normal = torch.ldexp(torch.full_like(value, info.eps / 2), exponent)
    # Below the smallest normal number the distance stays what it is there; frexp calls zero's exponent 0.
    smallest = info.smallest_normal * info.eps
    return torch.where(value == 0, smallest, normal.clamp(min=smallest))
