"""One layer with adapters, as a tuner layer of PEFT: the base class for both methods.

::

      PEFT's layer
      |-- base_layer               the pretrained layer: never changed, except while merged
      '-- rosa_layer, robust_layer
          |-- default              an adapter
          '-- another

The pretrained weight is not changed, so that the model without adapters, and every other adapter, use it bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from rosa.adapters.base import Adapter, LinearLayer, oriented
from rosa.adapters.linalg.precision import exact
from rosa.errors import AdapterError
from rosa.peft.config import TunerConfig


class SavedAdapter(Adapter):
    """An adapter that is saved as tensors of its own, apart from the pretrained weight."""

    def saved(self) -> dict[str, Tensor]:
        """The tensors to save, by name."""
        raise NotImplementedError

    def check_saved(self, tensors: dict[str, Tensor], source: str) -> None:
        """Check that :meth:`load_saved` can restore the adapter from these tensors, also on the meta device.

        Args:
            tensors: by name, as of :meth:`saved`.
            source: the origin of the tensors, for error messages.

        Raises:
            AdapterError: a tensor is missing or has another shape, as one of another rank.
        """
        raise NotImplementedError

    def load_saved(self, original: Tensor, tensors: dict[str, Tensor]) -> None:
        """Restore the adapter from tensors that :meth:`check_saved` accepted.

        Args:
            original: the pretrained weight in the layer's own layout.
            tensors: by name, as of :meth:`saved`.
        """
        raise NotImplementedError


class TunerLinear(nn.Module, BaseTunerLayer):
    """One adapted layer with one or more adapters of a method; PEFT's "tuner layer".

    Args:
        base_layer: the layer to adapt.
        name: its name in the model, for messages.
    """

    prefix: ClassVar[str]
    """The prefix of the method's names in the model and in saved adapters, with an underscore."""
    base_layer: LinearLayer
    unmerged: Tensor | None
    """The pretrained weight while adapters are merged into the base layer; else None."""

    def __init__(self, base_layer: LinearLayer, name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.add_module(f"{self.prefix}layer", nn.ModuleDict())
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._trained: dict[str, tuple[str, ...]] = {}
        self.register_buffer("unmerged", None, persistent=False)
        self.out_features, self.in_features = oriented(base_layer, base_layer.weight).shape

    @classmethod
    @abstractmethod
    def require_fit(cls, config: TunerConfig, name: str, shape: tuple[int, int]) -> None:
        """Check that a layer of this name and shape (out, in) can have an adapter.

        Raises:
            AdapterError: the rank or another option does not fit it.
        """

    @abstractmethod
    def new_adapter(self, config: TunerConfig) -> SavedAdapter:
        """An adapter with which the layer computes what the pretrained one does."""

    @abstractmethod
    def weight_of(self, adapter_name: str) -> Tensor:
        """The pretrained weight as one adapter changes it; (out, in), float64."""

    @property
    def adapters(self) -> nn.ModuleDict:
        """The adapters by name."""
        found: Any = self._modules[f"{self.prefix}layer"]
        return found

    @property
    def weight(self) -> Tensor:
        """The weight that the layer applies, in the base layer's layout, for code that reads it (see ``Adapter``)."""
        active = self._active()
        if len(active) == 1:
            return active[0].weight
        if not active:
            return self.base_layer.weight
        return oriented(self.base_layer, self._weight_with(self.active_adapters)).to(self.base_layer.weight.dtype)

    def adapter(self, name: str) -> SavedAdapter:
        """The adapter of this name."""
        found = self.adapters[name]
        assert isinstance(found, SavedAdapter)
        return found

    def pretrained(self) -> Tensor:
        """The pretrained weight in the base layer's layout."""
        return self.base_layer.weight if self.unmerged is None else self.unmerged

    def update_layer(self, adapter_name: str, config: TunerConfig) -> None:
        """Add an adapter; the layer's function is unchanged."""
        adapter = self.new_adapter(config)
        self._trained[adapter_name] = tuple(key for key, factor in adapter.factors().items() if factor.requires_grad)
        adapter.train(self.base_layer.training)
        self.adapters[adapter_name] = adapter
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
        """The matrix that an adapter adds to the pretrained weight, in the base layer's layout, float32 or wider.

        Zeros for an adapter that this layer does not have, as ``peft.convert_to_lora`` asks every adapted layer.
        """
        if adapter_name not in self.adapters:
            return torch.zeros_like(self.pretrained(), dtype=torch.float32)
        delta = self.weight_of(adapter_name) - exact(oriented(self.base_layer, self.pretrained()))
        factor = next(iter(self.adapter(adapter_name).factors().values()))
        return oriented(self.base_layer, delta).to(factor)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the weight with these adapters, by default the active ones, into the base layer.

        Args:
            safe_merge: refuse, and change nothing, if the weight would not be finite.
            adapter_names: the adapters to merge, in addition to those that are merged already.

        Raises:
            AdapterError: ``safe_merge``, and a weight is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.adapters]
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
            self._require_grad(set(self.adapters), False)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Use these adapters, and train their factors unless ``inference_mode``."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        for name in self.adapters:
            self.adapter(name).active = name in names
        self._require_grad(set(self.adapters) - set(names), False)
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
        if adapter_name in self.adapters and not self.is_meta(adapter_name):
            self.adapters[adapter_name].to(device or self.base_layer.weight.device)

    def is_meta(self, adapter_name: str) -> bool:
        """Whether an adapter waits on the meta device for the tensors of a file."""
        return any(factor.is_meta for factor in self.adapter(adapter_name).factors().values())

    def _require_grad(self, names: set[str], value: bool) -> None:
        """Set ``requires_grad`` of the factors that the configuration trains, and of nothing else."""
        for name in names & set(self.adapters):
            factors = self.adapter(name).factors()
            for key in self._trained[name]:
                factors[key].requires_grad_(value)

    def _active(self) -> list[SavedAdapter]:
        """The adapters that a forward pass uses."""
        if self._disable_adapters or self.merged_adapters:
            return []
        return [self.adapter(name) for name in self.active_adapters if name in self.adapters]

    def _weight_with(self, names: list[str]) -> Tensor:
        """The pretrained weight with the sum of these adapters' changes; (out, in), float64."""
        present = [name for name in names if name in self.adapters]
        weight = self.weight_of(present[0])
        if len(present) > 1:
            base = exact(oriented(self.base_layer, self.pretrained()))
            for name in present[1:]:
                weight = weight + (self.weight_of(name) - base)
        return weight
