"""Measures of a run's weight changes: per subspace, and accumulated over the whole training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import logging

from rosa.adapters.base import AddingAdapter, LinearLayer, ResampledAdapter, oriented, whole
from rosa.adapters.linalg.subspace import rounding_level
from rosa.adapters.modules import adapters
from rosa.errors import AdapterError

LayerFactors = dict[str, tuple[Tensor, Tensor]]
"""A (out, r) and B (r, in) of each layer, by layer name."""

NOISE = 4.0
"""A singular value of a change counts if it exceeds this many times the rounding level of the weight."""


def factors_of(model: nn.Module) -> LayerFactors:
    """Copies of the factors A (out, r) and B (r, in) of every layer that has both, on the CPU."""
    found = {}
    for name, adapter in adapters(model):
        factors = adapter.factors()
        if {"A", "B"} <= factors.keys():
            A, B = (whole(factors[key].detach()).cpu().clone() for key in ("A", "B"))
            found[name] = (A, B)
    return found


def moved(before: LayerFactors, after: LayerFactors) -> dict[str, float]:
    """The Frobenius norm of ``A B - A0 B0``, the change of each product in one subspace, by layer.

    The difference is ``[A, A0] [B; -B0]``, of rank at most 2 r; its norm is computed from the small R factors of two QR
    decompositions.
    """
    norms = {}
    for name, (A, B) in after.items():
        A0, B0 = before[name]
        left = torch.linalg.qr(torch.cat([A, A0], dim=1).double(), mode="r").R
        right = torch.linalg.qr(torch.cat([B, -B0]).double().T, mode="r").R
        norms[name] = float((left @ right.T).norm())
    return norms


def visited_share(model: nn.Module) -> dict[str, float]:
    """The share of each layer's singular directions drawn at least once, identified by their spectrum positions."""
    seen = {name: adapter.visited for name, adapter in adapters(model) if isinstance(adapter, ResampledAdapter)}
    return {name: float(mask.float().mean()) for name, mask in seen.items() if mask is not None}


def effective_rank(singular_values: Tensor) -> float:
    """The exponential of the entropy of the normalized singular values; 0 for a zero matrix.

    Between 1 (one direction) and the number of values (all equal). Source: Roy and Vetterli, "The effective rank: a
    measure of effective dimensionality", EUSIPCO 2007, definition 1.
    """
    total = singular_values.sum()
    if not total > 0:
        return 0.0
    shares = singular_values / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


@dataclass(frozen=True)
class Change:
    """Training's change of one layer's weight."""

    name: str
    full_rank: int
    """min(out, in)."""
    rank: int
    """Number of the change's singular values above the rounding level of the weight (times ``NOISE``)."""
    effective_rank: float
    norm: float
    """Frobenius norm of the change."""
    relative_norm: float | None
    """``norm`` divided by the pretrained weight's Frobenius norm; None for a pretrained weight of zeros."""
    visited: float | None
    """Share of the singular directions drawn at least once; None if the method draws none."""


def compared(model: nn.Module) -> list[str]:
    """Names of the layers to whose weights an adapter adds a matrix: those of :func:`changes`."""
    return [name for name, adapter in adapters(model) if isinstance(adapter, AddingAdapter)]


@torch.no_grad()
def changes(model: nn.Module, pretrained: nn.Module) -> list[Change]:
    """The difference to the pretrained weight of every layer with an :class:`AddingAdapter`.

    Args:
        model: with a method attached.
        pretrained: the model before fine-tuning, on any device.

    Raises:
        AdapterError: the pretrained model lacks a layer, or has it in another shape.
    """
    visited = visited_share(model)
    found = []
    adding = [(name, adapter) for name, adapter in adapters(model) if isinstance(adapter, AddingAdapter)]
    for name, adapter in logging.tqdm(
        adding, desc="changes of weights", unit="layer", leave=False, delay=2, disable=None
    ):
        final = adapter.effective_weight()
        try:
            layer = pretrained.get_submodule(name)
        except AttributeError as error:
            raise AdapterError(f"{name}: the pretrained model has no such layer") from error
        if not isinstance(layer, LinearLayer) or oriented(layer, layer.weight).shape != final.shape:
            raise AdapterError(f"{name}: expected a linear layer of shape {tuple(final.shape)} in the pretrained model")
        start = oriented(layer, layer.weight).to(final.device, torch.float64)
        change = final - start
        values = torch.linalg.svdvals(change)
        floor = NOISE * rounding_level(oriented(layer, layer.weight))
        real = values[values > floor]
        norm, size = float(change.norm()), float(start.norm())
        found.append(
            Change(
                name=name,
                full_rank=min(start.shape),
                rank=len(real),
                effective_rank=effective_rank(real),
                norm=norm,
                relative_norm=norm / size if size else None,
                visited=visited.get(name),
            )
        )
    return found
