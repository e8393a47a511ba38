"""Base classes of adapters.

An adapter wraps one linear layer (``nn.Linear`` or GPT-2's ``Conv1D``), owns its trainable factors, and can merge them
into the layer. Weight shapes are (out, in) throughout; :func:`oriented` hides that ``Conv1D`` stores (in, out).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from transformers.pytorch_utils import Conv1D

from rosa.adapters.linalg.precision import Cast, exact, readable
from rosa.adapters.linalg.subspace import Factors
from rosa.adapters.quantized import dense_layer, dequantized, quant_state

LinearLayer = nn.Linear | Conv1D
"""The layers that can be adapted."""


def is_stock(layer: LinearLayer) -> bool:
    """Whether a layer multiplies as PyTorch and transformers do, so that autocast sets the precision of its product.

    A subclass with a ``forward`` of its own may compute in float32 all the same.
    """
    return type(layer).forward in (nn.Linear.forward, Conv1D.forward)


def output_of(layer: LinearLayer, given: Tensor, cast: Tensor) -> Tensor:
    """A layer's output for an input that autocast casts: a stock layer gets it cast already, others as it was given."""
    return layer(cast if is_stock(layer) else given)


def is_bare(layer: LinearLayer) -> bool:
    """Whether calling a layer only runs its class's ``forward`` on a frozen weight, so that nobody misses the call.

    Not with hooks of its own, nor with a ``forward`` put in its place, which offloaded weights have; nor with a weight
    that is computed at each call, or that trains.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    stored = "weight" in layer._parameters  # where it is not, reading it computes it
    return not any(hooks) and "forward" not in vars(layer) and stored and not layer.weight.requires_grad


def is_transformed() -> bool | None:
    """Whether a call is recorded or differentiated in a way for which a function of one's own would need rules.

    So do TorchScript's tracer, forward-mode differentiation and the transforms of ``torch.func``. None if this version
    of PyTorch does not say: the names of the last two are private.
    """
    if torch.jit.is_tracing():
        return True
    level = getattr(forward_ad, "_current_level", None)
    transforms = getattr(torch._C, "_are_functorch_transforms_active", None)
    return None if level is None or transforms is None else level >= 0 or transforms()


def oriented(layer: LinearLayer, weight: Tensor) -> Tensor:
    """Convert between a layer's own weight layout and (out, in), in either direction; returns a view."""
    return weight.T if isinstance(layer, Conv1D) else weight


def weight_shape(layer: LinearLayer) -> tuple[int, int]:
    """(out, in) of a layer's weight, quantized or not."""
    state = quant_state(layer)
    out_features, in_features = oriented(layer, layer.weight).shape if state is None else state.shape
    return out_features, in_features


def weight_dtype(layer: LinearLayer) -> torch.dtype:
    """The dtype of a layer's weight; of a quantized one, that from which it was quantized."""
    state = quant_state(layer)
    found: torch.dtype = layer.weight.dtype if state is None else state.dtype
    return found


def dense_weight(layer: LinearLayer) -> Tensor:
    """A layer's weight (out, in): a view, or the values of a quantized one."""
    return oriented(layer, layer.weight) if quant_state(layer) is None else dequantized(layer)


def whole(tensor: Tensor) -> Tensor:
    """The tensor; a sharded one (``fully_shard``) is gathered, for which every process must call this."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


class OfBase:
    """An attribute of the wrapped layer, read on the adapter; an adapter may have one of its own by the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, adapter: Adapter | None, owner: type | None = None) -> Any:
        return self if adapter is None else getattr(adapter.base, self._name)


class Adapter(nn.Module):
    """One wrapped linear layer. Subclasses own the factors, the forward pass and the effective weight."""

    base: LinearLayer
    rank: int | None = None
    active: bool = True
    """False while another adapter of the same layer is in use (as PEFT's ``set_adapter`` leaves it)."""

    in_features, out_features = OfBase(), OfBase()
    nx, nf = OfBase(), OfBase()
    """The same of a ``Conv1D``. Model code reads the sizes of its layers, as it does their weights."""

    @property
    def weight(self) -> Tensor:
        """The effective weight in the base layer's layout and dtype, differentiable in the factors.

        Of a quantized base, in the dtype that it was quantized from. For model code that reads a layer's weight instead
        of calling the layer. Recomputed at every access.
        """
        return oriented(self.base, self.effective_weight(readable)).to(weight_dtype(self.base))

    @property
    def bias(self) -> Tensor | None:
        """The effective bias (out,) in the base's dtype, differentiable and recomputed at every access."""
        bias = self.effective_bias(readable)
        return None if bias is None else bias.to(self.base.bias.dtype)

    def factors(self) -> dict[str, nn.Parameter]:
        """The adapter's own parameters by name, trainable or not."""
        raise NotImplementedError

    def changing(self) -> list[str]:
        """Names, within this module, of the tensors that training changes and a checkpoint must contain."""
        return list(self.factors())

    def undecayed(self) -> list[str]:
        """Names, within this module, of the factors that are exempt from weight decay."""
        return []

    def rate_ratios(self) -> dict[str, float]:
        """Factors with a learning rate of their own, by name in this module: its ratio to the run's learning rate."""
        return {}

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The weight (out, in) of the equivalent plain linear layer, differentiable in the factors.

        Args:
            cast: converts every stored tensor to the dtype in which the sum is computed.
        """
        raise NotImplementedError

    def effective_bias(self, cast: Cast = exact) -> Tensor | None:
        """The bias (out,) of the equivalent plain linear layer; None without a bias."""
        return None if self.base.bias is None else cast(self.base.bias)

    @torch.no_grad()
    def merge(self) -> LinearLayer:
        """Write the effective weight and bias into the base layer, in place, and return that layer.

        For a quantized base layer, a new plain layer that holds them is returned.
        """
        weight, bias = self.effective_weight(), self.effective_bias()
        if quant_state(self.base) is not None:
            return dense_layer(weight, bias, weight_dtype(self.base))
        self.fold(weight)
        if bias is not None:
            self.base.bias.copy_(bias)
        return self.base

    @torch.no_grad()
    def fold(self, weight: Tensor) -> None:
        """Copy this (out, in) weight into the base layer, rounded once to the layer's dtype."""
        oriented(self.base, self.base.weight).copy_(weight)


class AddingAdapter(Adapter):
    """An adapter whose effect is a matrix added to the base layer's weight."""

    def delta_weight(self, cast: Cast = exact) -> Tensor:
        """The matrix (out, in) added to the base weight; ``cast`` as in :meth:`effective_weight`."""
        raise NotImplementedError

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The base layer's weight plus :meth:`delta_weight`."""
        return cast(dense_weight(self.base)) + self.delta_weight(cast)


class ResampledAdapter(AddingAdapter):
    """An adapter that can move to a new subspace without changing the function it computes."""

    visited: Tensor | None
    """(min(out, in),) bool: positions in the descending spectrum that have been drawn; None if the factorization does
    not draw singular triplets."""

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Draw everything random about the next subspace, on the CPU."""
        raise NotImplementedError

    @staticmethod
    def factorize(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> tuple[list[Factors], list[float]]:
        """Factorize the effective weights of adapters of this class along the drawn directions; changes no adapter.

        Returns:
            The next factors and the seconds spent, for each adapter.

        Raises:
            FactorizationError: a weight is not finite, or cannot be factorized.
        """
        raise NotImplementedError

    def enter(self, factors: Factors, drawn: Tensor) -> None:
        """Move to the subspace of these factors, in place: the Parameter objects stay the same."""
        raise NotImplementedError

    def before_move(self) -> None:
        """Called on every process before one of them calls :meth:`enter`; does nothing here."""

    def after_move(self) -> None:
        """Called on every process once the adapter is in its next subspace; does nothing here."""

    def optimizer_state(self) -> str:
        """How a resample treats the optimizer's state of the factors: ``reset``, ``keep`` or ``prune``."""
        raise NotImplementedError


class SupportedAdapter(Adapter):
    """An adapter with a sparse part, whose positions are chosen during training from the whole weight's gradient."""

    shape: tuple[int, int]
    """(out, in)."""
    index: Tensor | None
    """(k,) sorted flat positions of the sparse part in (out, in), -1 before they are chosen; None without one."""

    def collect(self, take: Callable[[Tensor], None] | None) -> None:
        """Pass the gradient (out, in) of the weight to ``take`` in every backward pass from now on; None stops this."""
        raise NotImplementedError

    def choose(self, index: Tensor) -> None:
        """Set the positions of the sparse part, in place; its values start at 0."""
        raise NotImplementedError
