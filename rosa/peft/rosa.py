"""ROSA, random subspace adaptation, in PEFT: its tuner layer and its tuner.

Each adapter of a layer is a ROSA adapter with a frozen weight W_f of its own, beside the pretrained weight;
docs/peft.md compares the ways to store it, with their memory and time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.subspace import resolve_rank
from rosa.adapters.resampling import move
from rosa.config import RosaConfig
from rosa.errors import AdapterError
from rosa.peft.config import TunerConfig
from rosa.peft.history import RosaWithHistory
from rosa.peft.layer import TunerLinear
from rosa.peft.model import Tuner


class RosaTunerLinear(TunerLinear):
    """One layer with one or more adapters of ROSA."""

    prefix = "rosa_"
    adapter_layer_names = ("rosa_A", "rosa_B")
    other_param_names = ("rosa_layer",)

    @classmethod
    def require_fit(cls, config: TunerConfig, name: str, shape: tuple[int, int]) -> None:
        """Check the rank.

        Raises:
            AdapterError: it does not fit the layer.
        """
        resolve_rank(config.rank_of(name), *shape)

    def new_adapter(self, config: TunerConfig) -> RosaWithHistory:
        """An adapter that is not yet in a subspace: its factors are 0."""
        method = config.method()
        assert isinstance(method, RosaConfig)
        rank = resolve_rank(config.rank_of(self.name), self.out_features, self.in_features)
        return RosaWithHistory(self.name, beside(self.base_layer, self.pretrained()), rank, method)

    def weight_of(self, adapter_name: str) -> Tensor:
        """``W_f + A B`` (out, in), float64."""
        return self.adapter(adapter_name).effective_weight()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse another pretrained weight where an adapter would keep the frozen weight of the present one.

        Raises:
            AdapterError: the state has another pretrained weight than this layer, and no frozen weight for an adapter.
        """
        given, present = state_dict.get(f"{prefix}base_layer.weight"), self.base_layer.weight
        stale = [name for name in self.adapters if f"{prefix}rosa_layer.{name}.base.weight" not in state_dict]
        stale = [name for name in stale if not self.is_meta(name)]  # those there are still to be loaded
        if stale and given is not None and given.shape == present.shape and not torch.equal(given.to(present), present):
            raise AdapterError(
                f"{self.name}: the state has another pretrained weight, but adapter {stale[0]!r} was split from "
                "the one here: load the pretrained weights first, and then add the adapter (peft.get_peft_model) or "
                "load it (PeftModel.from_pretrained)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def rosa_A(self) -> nn.ParameterDict:  # noqa: N802
        """The adapters' A (out, r) by name; a view, which PEFT reads to find trainable parameters."""
        return nn.ParameterDict({name: self.adapter(name).factors()["A"] for name in self.adapters})

    @property
    def rosa_B(self) -> nn.ParameterDict:  # noqa: N802
        """The adapters' B (r, in) by name, likewise."""
        return nn.ParameterDict({name: self.adapter(name).factors()["B"] for name in self.adapters})


class RosaModel(Tuner):
    """A model with ROSA's adapters; made by ``peft.get_peft_model(model, rosa.peft.RosaConfig(...))``."""

    prefix = RosaTunerLinear.prefix
    tuner_layer_cls = RosaTunerLinear
    title = "ROSA"
    why_not_weighted = "adapters of ROSA live in different subspaces and cannot be combined into one"
    instead_of_weighted = "Save each with save_pretrained(folder, as_lora=True) and combine the LoRA adapters, or"

    def _begin(self, adapter_name: str) -> None:
        """Draw the first subspaces of a new adapter."""
        found = [layer.adapter(adapter_name) for layer in self.layers_of(adapter_name)]
        members = [adapter for adapter in found if isinstance(adapter, RosaWithHistory)]
        move(members, [adapter.draw(None) for adapter in members])


class Owner:
    """A reference to a layer; its copy refers to the layer's copy, if one was made, or else to the layer.

    Without this, a copy of an adapter alone, as a resample under FSDP makes, would have a copy of the layer in it.
    """

    def __init__(self, layer: LinearLayer) -> None:
        self.layer = layer

    def __deepcopy__(self, memo: dict[int, Any]) -> Owner:
        return Owner(memo.get(id(self.layer), self.layer))


class SharesBias:
    """A layer that reads its bias from another layer at each use, so that it has the other's after any replacement."""

    @property
    def bias(self) -> Tensor | None:
        """The other layer's bias."""
        found: Tensor | None = vars(self)["owner"].layer.bias
        return found


class LinearBeside(SharesBias, nn.Linear):  # type: ignore[misc]
    """``nn.Linear`` with its own weight and another layer's bias."""


class Conv1DBeside(SharesBias, Conv1D):  # type: ignore[misc]
    """``Conv1D`` likewise."""


def beside(layer: LinearLayer, weight: Tensor) -> LinearLayer:
    """As :func:`own_copy`, but the bias stays a parameter of ``layer`` alone.

    A shared bias would become two where PEFT (``low_cpu_mem_usage``) or ``load_state_dict(assign=True)`` replaces it.
    """
    copy = own_copy(layer, weight)
    del copy._parameters["bias"]  # hides the property, as it would in the constructor
    copy.__class__ = Conv1DBeside if isinstance(copy, Conv1D) else LinearBeside
    vars(copy)["owner"] = Owner(layer)  # no submodule: the state of the model would have its tensors under two names
    return copy


def own_copy(layer: LinearLayer, weight: Tensor) -> LinearLayer:
    """A plain linear layer (``nn.Linear`` or ``Conv1D``) with a frozen copy of this weight, and with the same bias.

    Args:
        layer: gives the class and the bias.
        weight: in the layer's own layout.
    """
    out_features, in_features = oriented(layer, weight).shape
    with torch.device("meta"):  # without drawing initial values
        if isinstance(layer, Conv1D):
            copy: LinearLayer = Conv1D(out_features, in_features)
        else:
            copy = nn.Linear(in_features, out_features, bias=False)
    copy.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    copy._parameters["bias"] = layer.bias  # assigned, it would go to the meta device under low_cpu_mem_usage
    return copy
