"""One layer with ROSA adapters, as a tuner layer of PEFT.

::

      PEFT's layer
      |-- base_layer               the pretrained layer: never changed, except while merged
      '-- rosa_layer
          |-- default              a ROSA adapter with a frozen weight of its own; the bias is base_layer's
          '-- another

The pretrained weight is not changed, so that the model without adapters, and every other adapter, use it bit for bit;
each adapter has its own W_f in addition. docs/peft.md compares the ways to store it, with their memory and time.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.precision import exact
from rosa.config import RosaConfig
from rosa.errors import AdapterError
from rosa.peft.history import RosaWithHistory


class RosaTunerLinear(nn.Module, BaseTunerLayer):
    """One adapted layer with one or more ROSA adapters; PEFT's "tuner layer".

    Args:
        base_layer: the layer to adapt.
        name: its name in the model, for messages.
    """

    adapter_layer_names = ("rosa_A", "rosa_B")
    other_param_names = ("rosa_layer",)
    base_layer: LinearLayer
    unmerged: Tensor | None
    """The pretrained weight while adapters are merged into the base layer; else None."""

    def __init__(self, base_layer: LinearLayer, name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.rosa_layer = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._trained: dict[str, tuple[str, ...]] = {}
        self.register_buffer("unmerged", None, persistent=False)
        self.out_features, self.in_features = oriented(base_layer, base_layer.weight).shape

    @property
    def weight(self) -> Tensor:
        """The weight that the layer applies, in the base layer's layout, for code that reads it (see ``Adapter``)."""
        active = self._active()
        if len(active) == 1:
            return active[0].weight
        if not active:
            return self.base_layer.weight
        return oriented(self.base_layer, self._weight_with(self.active_adapters)).to(self.base_layer.weight.dtype)

    @property
    def rosa_A(self) -> nn.ParameterDict:  # noqa: N802
        """The adapters' A (out, r) by name; a view, which PEFT reads to find trainable parameters."""
        return nn.ParameterDict({name: self.adapter(name).A for name in self.rosa_layer})

    @property
    def rosa_B(self) -> nn.ParameterDict:  # noqa: N802
        """The adapters' B (r, in) by name, likewise."""
        return nn.ParameterDict({name: self.adapter(name).B for name in self.rosa_layer})

    def adapter(self, name: str) -> RosaWithHistory:
        """The adapter of this name."""
        found = self.rosa_layer[name]
        assert isinstance(found, RosaWithHistory)
        return found

    def pretrained(self) -> Tensor:
        """The pretrained weight in the base layer's layout."""
        return self.base_layer.weight if self.unmerged is None else self.unmerged

    def update_layer(self, adapter_name: str, rank: int, config: RosaConfig) -> None:
        """Add an adapter that is not yet in a subspace, so that the layer's function is unchanged."""
        adapter = RosaWithHistory(self.name, own_copy(self.base_layer), rank, config)
        self._trained[adapter_name] = tuple(key for key, factor in adapter.factors().items() if factor.requires_grad)
        adapter.train(self.base_layer.training)
        self.rosa_layer[adapter_name] = adapter
        self.set_adapter(self.active_adapters)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x W^T + b`` with the sum of the active adapters' changes of W; (…, in) -> (…, out)."""
        if self._disable_adapters and self.merged:
            self.unmerge()
        active = self._active()
        if not active:
            return self.base_layer(x, *args, **kwargs)
        out: Tensor = active[0](x)
        if len(active) > 1:
            base = self.base_layer(x)
            for adapter in active[1:]:
                out = out + (adapter(x) - base)
        return out

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """The matrix that an adapter adds to the pretrained weight, in the base layer's layout, float32 or wider."""
        delta = self._weight_with([adapter_name]) - exact(oriented(self.base_layer, self.pretrained()))
        return oriented(self.base_layer, delta).to(self.adapter(adapter_name).A)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the weight with these adapters, by default the active ones, into the base layer.

        Args:
            safe_merge: refuse, and change nothing, if the weight would not be finite.
            adapter_names: the adapters to merge, in addition to those that are merged already.

        Raises:
            AdapterError: ``safe_merge``, and a weight is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.rosa_layer]
        if not names:
            return
        weight = self._weight_with([*self.merged_adapters, *names])
        if safe_merge and not bool(torch.isfinite(weight).all()):
            raise AdapterError(
                f"{self.name}: with {', '.join(names)} merged, {int((~torch.isfinite(weight)).sum())} of "
                f"{weight.numel()} weights would not be finite (NaN or infinite); nothing was merged into this layer"
            )
        if self.unmerged is None:
            self.unmerged = self.base_layer.weight.detach().clone()
        oriented(self.base_layer, self.base_layer.weight).copy_(weight)
        self.merged_adapters = [*self.merged_adapters, *names]

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the pretrained weight, bit for bit."""
        if self.unmerged is not None:
            self.base_layer.weight.copy_(self.unmerged)
            self.unmerged = None
        self.merged_adapters = []

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """True: an adapter is a matrix added to the pretrained weight."""
        return True

    def enable_adapters(self, enabled: bool) -> None:
        """Use the adapters, or the pretrained layer alone; in the latter case the factors get no gradients."""
        self._disable_adapters = not enabled
        if enabled:
            self.set_adapter(self.active_adapters)
        else:
            self._require_grad(set(self.rosa_layer), False)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Use these adapters, and train their factors unless ``inference_mode``."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        for name in self.rosa_layer:
            self.adapter(name).active = name in names
        self._require_grad(set(self.rosa_layer) - set(names), False)
        self._require_grad(set(names), not inference_mode)
        self._active_adapter = names

    def set_requires_grad(self, adapter_names: Any, requires_grad: bool = True) -> None:
        """Set whether the factors of these adapters are trained."""
        self._require_grad({adapter_names} if isinstance(adapter_names, str) else set(adapter_names), requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter."""
        super().delete_adapter(adapter_name)
        self._trained.pop(adapter_name, None)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Like PEFT's method, but every tensor keeps its dtype: the factors are wider than a 16-bit weight."""
        if adapter_name in self.rosa_layer and not self.adapter(adapter_name).A.is_meta:
            self.rosa_layer[adapter_name].to(device or self.base_layer.weight.device)

    def _require_grad(self, names: set[str], value: bool) -> None:
        """Set ``requires_grad`` of the factors that the configuration trains, and of nothing else."""
        for name in names & set(self.rosa_layer):
            factors = self.adapter(name).factors()
            for key in self._trained[name]:
                factors[key].requires_grad_(value)

    def _active(self) -> list[RosaWithHistory]:
        """The adapters that a forward pass uses."""
        if self._disable_adapters or self.merged_adapters:
            return []
        return [self.adapter(name) for name in self.active_adapters if name in self.rosa_layer]

    def _weight_with(self, names: list[str]) -> Tensor:
        """The pretrained weight with the sum of these adapters' changes; (out, in), float64."""
        adapters = [self.adapter(name) for name in names if name in self.rosa_layer]
        weight = adapters[0].effective_weight()
        if len(adapters) > 1:
            base = exact(oriented(self.base_layer, self.pretrained()))
            for adapter in adapters[1:]:
                weight = weight + (adapter.effective_weight() - base)
        return weight


def own_copy(layer: LinearLayer) -> LinearLayer:
    """A plain linear layer (``nn.Linear`` or ``Conv1D``) with a frozen copy of the weight, and with the same bias."""
    out_features, in_features = oriented(layer, layer.weight).shape
    with torch.device("meta"):  # without drawing initial values
        if isinstance(layer, Conv1D):
            copy: LinearLayer = Conv1D(out_features, in_features)
        else:
            copy = nn.Linear(in_features, out_features, bias=False)
    copy.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    copy.bias = layer.bias
    return copy
