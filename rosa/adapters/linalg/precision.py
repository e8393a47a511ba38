"""The precision of weight sums and of products, and compensated rounding of 16-bit weights.

Sums that are written back into weights are computed in float64 (:func:`exact`), which neither autocast nor TF32
affects. A bfloat16 or float16 weight would still lose up to half a unit in the last place at every such sum, so the
rounding error is stored beside it in one byte an entry (:func:`rounded`) and added to the next sum (:func:`restored`).
Together they have 16 significant bits for bfloat16 and 19 for float16.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

Cast = Callable[[Tensor], Tensor]
"""Converts a stored tensor to the dtype in which a sum is computed: :func:`exact` or :func:`readable`."""

STEPS = 254
"""Steps of the stored rounding error in one spacing of the dtype; half a spacing is 127 steps, int8's largest value."""


def autocasted(x: Tensor) -> Tensor:
    """The input of a layer in the dtype in which its products are computed, where autocast is on.

    Autocast itself would convert it for each product again, and its gradients back, each in a pass over the tokens.
    """
    device = x.device.type
    # As autocast does, leave float64 and what is no float as they are. Devices such as meta have no autocast.
    eligible = x.is_floating_point() and x.dtype != torch.float64 and torch.amp.is_autocast_available(device)
    return x.to(torch.get_autocast_dtype(device)) if eligible and torch.is_autocast_enabled(device) else x


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which products are computed in the dtype of their inputs."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else contextlib.nullcontext()


class Rounded(NamedTuple):
    """A tensor in a narrow dtype, and its rounding error."""

    value: Tensor
    """In the narrow dtype."""
    rest: Tensor
    """int8, in units of the spacing at the value divided by ``STEPS``."""


@functools.cache
def has_float64(device_type: str) -> bool:
    """Whether devices of this type (``cuda``, ``mps``) support float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device_type)
    except (TypeError, RuntimeError):
        return False
    return True


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, moved to the CPU if its device lacks float64; differentiable."""
    return (tensor if has_float64(tensor.device.type) else tensor.cpu()).double()


def readable(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own dtype if that is wider; differentiable."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether this is a float dtype of less than 32 bits, too coarse to round weights to during training."""
    return dtype.is_floating_point and torch.finfo(dtype).bits < 32


def rounded(tensor: Tensor, dtype: torch.dtype) -> Rounded:
    """Round a float64 tensor to a narrow dtype, and keep the rounding error in one byte an entry."""
    value = tensor.to(dtype)
    rest = (tensor - value.double()) / _spacing(value.double(), dtype) * STEPS
    return Rounded(value, rest.round().clamp(-STEPS // 2, STEPS // 2).to(torch.int8))


def restored(value: Tensor, rest: Tensor, dtype: torch.dtype) -> Tensor:
    """Invert :func:`rounded`, to within half a step.

    Args:
        value: the rounded tensor, converted to a wide dtype.
        rest: its rounding error, in the same wide dtype.
        dtype: the narrow dtype.
    """
    return value + rest * _spacing(value, dtype) / STEPS


def _spacing(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from each value to the next one away from zero in a narrow dtype."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(value).exponent  # value = mantissa 2^exponent, mantissa in [1/2, 1)
    normal = torch.ldexp(torch.full_like(value, info.eps / 2), exponent)
    # Subnormal numbers are equally spaced, as at the smallest normal one; frexp gives zero the exponent 0.
    smallest = info.smallest_normal * info.eps
    return torch.where(value == 0, smallest, normal.clamp(min=smallest))
