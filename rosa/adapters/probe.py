"""Run a model on an example before and after attaching: outputs must not change, and must depend on every layer.

A layer of a linear class may not be used as a linear layer: the model may have copied its weight at construction, or
read it through ``.data``. The layer itself does not show this, but a run of the model does.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rosa.adapters.linalg.precision import exact, is_narrow
from rosa.adapters.modules import adapters
from rosa.errors import AdapterError, RosaError
from rosa.utils.allocation import is_out_of_memory
from rosa.utils.console import first_line
from rosa.utils.modes import evaluating

SHOWN = 5
"""Number of layers that a warning names; it counts the rest."""
TOLERANCE = 1e-2
"""Largest accepted change of an output over its largest value: above TF32's rounding, below the effect of a layer."""
NARROW_TOLERANCE = 5e-2
"""The same for bfloat16 or float16 weights."""


class Probe:
    """The outputs of a model for an example.

    Args:
        model: evaluated once, without dropout; the training modes of its modules are restored.
        example: keyword arguments of its forward, on its device.

    Raises:
        AdapterError: the model fails on them; the message has their names and the model's error.
    """

    def __init__(self, model: nn.Module, example: Mapping[str, Any]) -> None:
        if not isinstance(example, Mapping):
            raise AdapterError(
                f"example of {type(example).__name__}: expected the keyword arguments of the model's forward, as in "
                "example={'input_ids': ...}"
            )
        self.example = example
        narrow = [parameter.dtype for parameter in model.parameters() if is_narrow(parameter.dtype)]
        self.dtype = narrow[0] if narrow else None
        try:
            with torch.no_grad():
                self.before = self._outputs(model)
        except Exception as error:
            if isinstance(error, RosaError) or is_out_of_memory(error):
                raise
            raise AdapterError(
                f"{type(model).__name__} fails on example, which has {', '.join(map(str, example)) or 'nothing'} "
                f"({first_line(type(error).__name__, str(error))}): expected the keyword arguments of its forward, on "
                "its device"
            ) from error

    def require_same(self, model: nn.Module) -> None:
        """Check that the model's outputs for the example have not changed.

        Raises:
            AdapterError: an output has changed by more than rounding.
        """
        with torch.no_grad():
            after = self._outputs(model)
        tolerance = NARROW_TOLERANCE if self.dtype else TOLERANCE
        for was, now in zip(self.before, after, strict=True):
            change = float((exact(now) - exact(was)).abs().max() / exact(was).abs().max().clamp(min=1e-30))
            if bool(torch.isfinite(was).all()) and not change <= tolerance:
                raise AdapterError(
                    f"attaching changes an output of {type(model).__name__} by {100 * change:.2g} % for the example: a "
                    "layer's weight is used in another way than x W^T + b; choose other layers with method.targets"
                )

    def warn_of_idle(self, model: nn.Module) -> None:
        """Warn about adapted layers on whose factors no output depends, with their names."""
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
        """The floating-point tensors in the model's output, in evaluation mode."""
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        lowered = torch.autocast(device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()
        with evaluating(model), lowered:
            leaves = tree_leaves(model(**self.example))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]
