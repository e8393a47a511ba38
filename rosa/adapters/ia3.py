"""(IA)3: learned vectors that rescale activations (arXiv 2205.05638, section 3.3).

The paper's variant scales keys, values and the inner activations of the feed-forward block; these layers are found by
their names, which depend on the architecture. The released code of ROSA's authors scales the inputs of every linear
layer of the attention instead (``variant: attention_inputs``). Vectors start at 1. Training scales activations; only a
merge scales the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import Adapter, LinearLayer, oriented
from rosa.adapters.linalg.precision import Cast, exact
from rosa.adapters.targets import linear_layers, refuse_problem, target_layers
from rosa.config import ATTENTION, IA3Config
from rosa.errors import AdapterError

KEYS_VALUES = re.compile(
    r"(attention\.self|attention|SelfAttention|EncDecAttention|self_attn|encoder_attn)\.(key|value|k|v|k_proj|v_proj)$"
)
"""BERT and RoBERTa, T5, Llama and OPT."""
FUSED = re.compile(r"attn\.c_attn$")
"""Query, key and value in one layer: GPT-2, and GPT-BigCode, whose heads share one key and value."""
FEED_FORWARD = re.compile(
    r"(layer\.\d+\.output\.dense|mlp\.c_proj|DenseReluDense\.wo|mlp\.down_proj|layers\.\d+\.fc2)$"
)
"""The layer that reads the feed-forward's inner activations: BERT and RoBERTa, GPT-2, T5, Llama, OPT."""


def _ones(size: int, weight: Tensor) -> Tensor:
    """A vector of ones in float32 or wider, whatever the backbone's dtype: Adam's small updates vanish in bfloat16."""
    return torch.ones(size, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)


class Scaled(Adapter):
    """An adapter whose only factor is a vector of ones at the start."""

    scale: nn.Parameter

    def factors(self) -> dict[str, nn.Parameter]:
        """``scale``: (in,), or the number of scaled outputs."""
        return {"scale": self.scale}

    def undecayed(self) -> list[str]:
        """``scale``: weight decay would pull it towards 0, which switches the layer off."""
        return ["scale"]


class ScaledOutput(Scaled):
    """``y = layer(x) * scale`` on the last ``scale.numel()`` outputs; earlier outputs are unchanged."""

    def __init__(self, base: LinearLayer, scaled: int) -> None:
        super().__init__()
        self.base = base
        self.scale = nn.Parameter(_ones(scaled, base.weight))

    def _full_scale(self) -> Tensor:
        out_features = oriented(self.base, self.base.weight).shape[0]
        untouched = out_features - self.scale.numel()
        return torch.cat([self.scale.new_ones(untouched), self.scale]) if untouched else self.scale

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        out = self.base(x)
        return out * self._full_scale().to(out.dtype)

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The base weight (out, in) with its rows scaled."""
        return oriented(self.base, cast(self.base.weight)) * cast(self._full_scale())[:, None]

    def effective_bias(self, cast: Cast = exact) -> Tensor | None:
        """The scaled bias (out,); None without a bias."""
        return None if self.base.bias is None else cast(self.base.bias) * cast(self._full_scale())


class ScaledInput(Scaled):
    """``y = layer(x * scale)``."""

    def __init__(self, base: LinearLayer) -> None:
        super().__init__()
        self.base = base
        in_features = oriented(base, base.weight).shape[1]
        self.scale = nn.Parameter(_ones(in_features, base.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return self.base(x * self.scale.to(x.dtype))

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The base weight (out, in) with its columns scaled."""
        return oriented(self.base, cast(self.base.weight)) * cast(self.scale)[None, :]


def build(model: nn.Module, config: IA3Config, generator: torch.Generator | None) -> Iterator[tuple[str, Adapter]]:
    """Yield an adapter for each layer that the configured variant scales; nothing is random.

    Raises:
        AdapterError: the names of the architecture's key, value or feed-forward layers are unknown, or the order of
            query, key and value in a fused layer is; or one of them cannot be adapted.
    """
    del generator  # vectors start at 1
    if config.variant == "attention_inputs":
        for name, base in target_layers(model, ATTENTION).items():
            yield name, ScaledInput(base)
        return
    layers = linear_layers(model)
    attention = {name: base for name, base in layers.items() if KEYS_VALUES.search(name) or FUSED.search(name)}
    feed_forward = {name: base for name, base in layers.items() if FEED_FORWARD.search(name)}
    for found, what in ((attention, "key and value"), (feed_forward, "feed-forward output")):
        if not found:
            raise AdapterError(
                f"(IA)3 found no {what} layer in {type(model).__name__}; its linear layers are: {', '.join(layers)}"
            )
    for name, base in (attention | feed_forward).items():
        refuse_problem(name, base, "use a method whose method.targets can leave the layer out")
    for name, base in attention.items():
        out_features, in_features = oriented(base, base.weight).shape
        if not FUSED.search(name):
            yield name, ScaledOutput(base, out_features)
        elif isinstance(base, Conv1D) or out_features < 3 * in_features:
            yield name, ScaledOutput(base, out_features - in_features)  # the query's outputs, as many as inputs, first
        else:
            raise AdapterError(
                f"{name} ({out_features} x {in_features}): (IA)3 cannot locate the keys and values of this fused "
                "layer; use method.variant=attention_inputs, which scales its inputs instead"
            )
    for name, base in feed_forward.items():
        yield name, ScaledInput(base)
