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

from rosa.adapters.linalg.precision import Cast, exact, readable
from rosa.adapters.linalg.subspace import Split

LinearLayer = nn.Linear | Conv1D
"""The layers that can be adapted."""


def oriented(layer: LinearLayer, weight: Tensor) -> Tensor:
    """A layer's weight as (out, in), or an (out, in) tensor in the layer's own layout: a view either way."""
    return weight.T if isinstance(layer, Conv1D) else weight


class Adapter(nn.Module):
    """One wrapped linear layer. Subclasses own the factors, the forward pass and the effective weight."""

    base: LinearLayer
    rank: int | None = None

    @property
    def weight(self) -> Tensor:
        """The effective weight in the base layer's layout and dtype, differentiable in the factors.

        For model code that reads a layer's weight instead of calling the layer. It is computed at every access.
        """
        return oriented(self.base, self.effective_weight(readable)).to(self.base.weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The effective bias, likewise."""
        bias = self.effective_bias(readable)
        return None if bias is None else bias.to(self.base.weight.dtype)

    def factors(self) -> dict[str, nn.Parameter]:
        """The adapter's own parameters by name, trainable or not."""
        raise NotImplementedError

    def changing(self) -> list[str]:
        """Names, within this module, of every tensor that training changes: what a checkpoint must hold."""
        return list(self.factors())

    def undecayed(self) -> list[str]:
        """Names, within this module, of factors that weight decay must leave alone."""
        return []

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The weight (out, in) of the plain layer that computes what this adapter does, differentiable in the factors.

        Args:
            cast: brings every stored tensor into the precision of the sum.
        """
        raise NotImplementedError

    def effective_bias(self, cast: Cast = exact) -> Tensor | None:
        """The bias (out,) of that layer, None where it has none."""
        return None if self.base.bias is None else cast(self.base.bias)

    @torch.no_grad()
    def merge(self) -> LinearLayer:
        """Give the base layer the effective weight and bias, in place, and return that layer."""
        weight, bias = self.effective_weight(), self.effective_bias()
        self.fold(weight)
        if bias is not None:
            self.base.bias.copy_(bias)
        return self.base

    @torch.no_grad()
    def fold(self, weight: Tensor) -> None:
        """Give the base layer this (out, in) weight, cast once to its own dtype."""
        oriented(self.base, self.base.weight).copy_(weight)


class AddingAdapter(Adapter):
    """An adapter whose effect is a matrix added to the base layer's weight."""

    def delta_weight(self, cast: Cast = exact) -> Tensor:
        """What is added (out, in); as in :meth:`effective_weight`."""
        raise NotImplementedError

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The base's weight with :meth:`delta_weight` added."""
        return oriented(self.base, cast(self.base.weight)) + self.delta_weight(cast)


class ResampledAdapter(AddingAdapter):
    """An adapter that can move to a new subspace without changing the function it computes."""

    visited: Tensor | None
    """(min(out, in),) bool: the positions in the descending spectrum that were drawn so far; None without singular
    triplets."""

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Choose the next subspace: all that chance decides, on the CPU."""
        raise NotImplementedError

    @staticmethod
    def factorize(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> tuple[list[Split], list[float]]:
        """Factors of the effective weights of adapters of this class along the drawn directions; nothing is changed.

        Returns:
            For each its next factors, and the seconds spent on it.

        Raises:
            FactorizationError: a weight is not finite, or cannot be factorized.
        """
        raise NotImplementedError

    def enter(self, factors: Split, drawn: Tensor) -> None:
        """Move to the subspace of these factors, in place: the same Parameter objects stay."""
        raise NotImplementedError

    def optimizer_state(self) -> str:
        """What becomes of the optimizer's state of the factors at a resample: ``reset``, ``keep`` or ``prune``."""
        raise NotImplementedError
