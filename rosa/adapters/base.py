"""What an adapter is, and how a model is taken apart and put together around one.

An adapter wraps one linear layer (``nn.Linear`` or GPT-2's ``Conv1D``), owns its trainable factors, and can give the
plain layer back with its effect folded in. Weights are spoken of as (out, in) throughout; :func:`oriented` hides that
``Conv1D`` stores (in, out).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

LinearLayer = nn.Linear | Conv1D
"""The layers that can be adapted."""


def oriented(layer: LinearLayer, weight: Tensor) -> Tensor:
    """A layer's weight as (out, in), or an (out, in) tensor in the layer's own layout: a view either way."""
    return weight.T if isinstance(layer, Conv1D) else weight


class Adapter(nn.Module):
    """One wrapped linear layer. Subclasses own the factors, the forward pass and the fold."""

    base: LinearLayer
    rank: int | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight in the base layer's layout, for model code that asks a layer for its dtype or device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return self.base.bias

    def factors(self) -> dict[str, nn.Parameter]:
        """The adapter's own parameters by name, trainable or not."""
        raise NotImplementedError

    def changing(self) -> list[str]:
        """Names, within this module, of every tensor that training changes: what a checkpoint must hold."""
        return list(self.factors())

    def undecayed(self) -> list[str]:
        """Names, within this module, of factors that weight decay must leave alone."""
        return []

    def merge(self) -> LinearLayer:
        """Fold the adapter into the base layer, in place, and return that layer."""
        raise NotImplementedError

    def fold(self, weight: Tensor, bias: Tensor | None = None) -> LinearLayer:
        """Give the base layer this (out, in) weight, cast once to its own dtype."""
        with torch.no_grad():
            oriented(self.base, self.base.weight).copy_(weight)
            if bias is not None:
                self.base.bias.copy_(bias)
        return self.base


class AddingAdapter(Adapter):
    """An adapter whose effect is a matrix added to the base layer's weight."""

    def delta_weight(self) -> Tensor:
        """What is added (out, in), float32, without gradient."""
        raise NotImplementedError

    def merged_weight(self) -> Tensor:
        """The base's weight with :meth:`delta_weight` added (out, in), float32 or the base's dtype if that is wider."""
        return oriented(self.base, self.base.weight.detach()) + self.delta_weight()

    def merge(self) -> LinearLayer:
        """The base layer with the merged weight."""
        return self.fold(self.merged_weight())


class ResampledAdapter(AddingAdapter):
    """An adapter that can move to a new subspace without changing the function it computes."""

    visited: Tensor | None
    """(min(out, in),) bool: the positions in the descending spectrum that were drawn so far; None without singular
    triplets."""

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Choose the next subspace: all that chance decides, on the CPU."""
        raise NotImplementedError

    @staticmethod
    def move(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> list[float]:
        """Move adapters of this class to the drawn subspaces, in place: the same Parameter objects stay.

        Returns:
            Seconds spent on each.
        """
        raise NotImplementedError

    def optimizer_state(self) -> str:
        """What becomes of the optimizer's state of the factors at a resample: ``reset``, ``keep`` or ``prune``."""
        raise NotImplementedError
