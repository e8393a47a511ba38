"""Try a model on an example before and after a method is attached: outputs must stay, and every layer take part.

A layer may be linear by class and be used in another way: its weight copied when the model was made, or read through
``.data``. No look at the layer tells; an example does.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rosa.adapters.linalg.precision import is_narrow
from rosa.adapters.modules import adapters
from rosa.errors import AdapterError

SHOWN = 5
"""Number of layers that a warning names; it counts the rest."""
TOLERANCE = 1e-2
"""Largest change of an output, as a share of the largest: above what TF32 rounds away, below what a layer does."""
NARROW_TOLERANCE = 5e-2
"""The same where weights are bfloat16 or float16."""


class Probe:
    """The outputs of a model for an example.

    Args:
        model: any; it is evaluated once, without dropout, and its modes are as before afterwards.
        example: keyword arguments of its forward, on its device.
    """

    def __init__(self, model: nn.Module, example: Mapping[str, Any]) -> None:
        self.example = example
        narrow = [parameter.dtype for parameter in model.parameters() if is_narrow(parameter.dtype)]
        self.dtype = narrow[0] if narrow else None
        with torch.no_grad():
            self.before = self._outputs(model)

    def require_same(self, model: nn.Module) -> None:
        """Refuse a method that has changed what the model computes.

        Raises:
            AdapterError: an output has changed by more than rounding.
        """
        with torch.no_grad():
            after = self._outputs(model)
        tolerance = NARROW_TOLERANCE if self.dtype else TOLERANCE
        for was, now in zip(self.before, after, strict=True):
            change = float((now.double() - was.double()).abs().max() / was.double().abs().max().clamp(min=1e-30))
            if bool(torch.isfinite(was).all()) and not change <= tolerance:
                raise AdapterError(
                    f"attaching changes an output of {type(model).__name__} by {100 * change:.2g} % for the example: a "
                    "layer's weight is used in another way than x W^T + b; choose other layers with method.targets"
                )

    def warn_of_idle(self, model: nn.Module) -> None:
        """Warn, by name, of adapted layers on whose factors no output depends."""
        factors = [
            (name, factor) for name, adapter in adapters(model) for factor in adapter.factors().values()
            if factor.requires_grad
        ]  # fmt: skip
        if not factors:
            return
        with torch.enable_grad():
            outputs = [out for out in self._outputs(model) if out.requires_grad]
            total = torch.stack([out.float().sum() for out in outputs]).sum() if outputs else None
        found = (
            torch.autograd.grad(total, [factor for _, factor in factors], allow_unused=True)
            if total is not None
            else [None] * len(factors)
        )
        idle = list(dict.fromkeys(name for (name, _), gradient in zip(factors, found, strict=True) if gradient is None))
        more = len(idle) - SHOWN
        if idle:
            warnings.warn(
                f"no output of {type(model).__name__} for the example depends on {len(idle)} of the adapted layers, so "
                f"they may never train: {', '.join(idle[:SHOWN])}{f' and {more} more' if more > 0 else ''}",
                stacklevel=3,
            )

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        """Every floating-point tensor in what the model gives back, in evaluation mode."""
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        lowered = torch.autocast(device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()
        with _evaluating(model), lowered:
            leaves = tree_leaves(model(**self.example))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
