"""Layers whose weight bitsandbytes has quantized to 4 bits (``Linear4bit``): their shape, and their weight's values."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from rosa.errors import AdapterError

NEEDED = "needs bitsandbytes: pip install 'rosa-finetune[quant]'"


def quant_state(layer: nn.Module) -> Any:
    """bitsandbytes' description of a 4-bit weight; None for a weight that is not quantized."""
    return getattr(layer.weight, "quant_state", None)


def quantized_problem() -> str | None:
    """The reason why a 4-bit weight cannot be adapted, with a remedy; None if it can."""
    return None if importlib.util.find_spec("bitsandbytes") else f"has a 4-bit weight, which {NEEDED}"


def dequantized(layer: nn.Module) -> Tensor:
    """The values (out, in) of a 4-bit weight, in the dtype that it was quantized from.

    Raises:
        AdapterError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.functional import dequantize_4bit
    except ImportError as error:
        raise AdapterError(f"a 4-bit weight {NEEDED}") from error
    weight: Any = layer.weight
    values: Tensor = dequantize_4bit(weight.data, quant_state(layer))
    return values


def dense_layer(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """A plain linear layer with this (out, in) weight and this bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)
