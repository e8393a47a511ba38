"""LoRA through Microsoft's ``loralib``, the paper's reference implementation (arXiv 2106.09685, section 4).

``loralib``'s layers merge their factors into ``W`` at ``eval()`` by default; here ``merge_weights=False``, so that
``train()`` and ``eval()`` never change ``W``. GPT-2's fused ``c_attn`` becomes a ``loralib.MergedLinear``, with one
pair of factors each for query, key and value.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import AddingAdapter, LinearLayer, oriented
from rosa.adapters.linalg.precision import Cast, exact
from rosa.adapters.targets import layer_ranks, matches, target_layers
from rosa.config import LoraConfig
from rosa.errors import DependencyError
from rosa.utils.seeding import draw_seed, global_stream

try:
    import loralib
except ImportError as error:
    install = "pip install loralib (or this package with [lora])"
    raise DependencyError(f"LoRA needs the package loralib, which is not installed: {install}") from error

FUSED_QUERY_KEY_VALUE = "*c_attn"


class LoraLinear(AddingAdapter):
    """``loralib.Linear`` or ``loralib.MergedLinear`` around a base layer whose parameters it shares.

    Args:
        name: the layer's name in its model.
        base: the layer to wrap.
        rank: R, 1 to min(out, in).
        config: the method's options.
        seed: of the initial factors.
    """

    lora: loralib.Linear | loralib.MergedLinear
    _base: LinearLayer

    def __init__(self, name: str, base: LinearLayer, rank: int, config: LoraConfig, seed: int) -> None:
        super().__init__()
        self.rank = rank
        transposed = isinstance(base, Conv1D)
        out_features, in_features = oriented(base, base.weight).shape
        options = {
            "r": self.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "fan_in_fan_out": transposed,
            "merge_weights": False,
            "bias": base.bias is not None,
        }
        with global_stream(seed), torch.device("cpu"):  # loralib draws from the global generator
            if transposed and matches(name, FUSED_QUERY_KEY_VALUE) and out_features == 3 * in_features:
                layer = loralib.MergedLinear(in_features, out_features, enable_lora=[True, True, True], **options)
            else:
                layer = loralib.Linear(in_features, out_features, **options)
        layer.weight = base.weight
        layer.bias = base.bias
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        layer.lora_A = nn.Parameter(layer.lora_A.detach().to(base.weight.device, dtype))
        layer.lora_B = nn.Parameter(layer.lora_B.detach().to(base.weight.device, dtype))
        # These replace lambdas of loralib, which cannot be pickled.
        if not config.dropout:
            layer.lora_dropout = nn.Identity()
        if isinstance(layer, loralib.MergedLinear):
            # Query, key and value are all adapted, so there is nothing to pad; loralib's boolean mask would make the
            # host wait for the GPU in every forward pass.
            layer.zero_pad = _as_it_is
        self.lora = layer
        object.__setattr__(self, "base", base)

    @property
    def base(self) -> LinearLayer:
        """The base layer, sharing loralib's parameters; outside the module tree, which would name them twice."""
        self._base.weight, self._base.bias = self.lora.weight, self.lora.bias  # load_state_dict may replace them
        return self._base

    @base.setter
    def base(self, layer: LinearLayer) -> None:
        object.__setattr__(self, "_base", layer)

    def forward(self, x: Tensor) -> Tensor:
        """``x W^T + b + dropout(x) A^T B^T alpha / r``, A and B as in loralib; (…, in) -> (…, out)."""
        if x.dtype == self.lora.lora_A.dtype or torch.is_autocast_enabled(x.device.type):
            return self.lora(x)
        with torch.autocast(x.device.type, dtype=x.dtype):  # float32 factors on a bfloat16 backbone
            return self.lora(x)

    def factors(self) -> dict[str, nn.Parameter]:
        """``lora.lora_A`` (r, in), or (3 r, in) in a merged layer, and ``lora.lora_B`` (out, r); B A is the update."""
        return {"lora.lora_A": self.lora.lora_A, "lora.lora_B": self.lora.lora_B}

    def delta_weight(self, cast: Cast = exact) -> Tensor:
        """The update (out, in), ``alpha / r`` included."""
        A, B = cast(self.lora.lora_A), cast(self.lora.lora_B)
        parts = A.shape[0] // B.shape[1]  # 3 in a merged layer, whose factors are stacked
        update = B.view(parts, -1, B.shape[1]) @ A.view(parts, B.shape[1], -1)
        return update.flatten(0, 1) * self.lora.scaling


def _as_it_is(update: Tensor) -> Tensor:
    return update


def build(model: nn.Module, config: LoraConfig, generator: torch.Generator | None) -> Iterator[tuple[str, LoraLinear]]:
    """Yield an adapter for each target layer."""
    layers = target_layers(model, config.targets)
    for name, rank in layer_ranks(layers, config).items():
        yield name, LoraLinear(name, layers[name], rank, config, draw_seed(generator))
