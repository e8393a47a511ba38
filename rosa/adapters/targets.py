"""Which layers of a model are adapted, at which rank, and which parameters are its task head."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.subspace import resolve_rank
from rosa.config import ATTENTION, RankedConfig
from rosa.errors import AdapterError

READ_NOT_CALLED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""PyTorch's modules that read the weights of the layers in them without calling those: an adapter would be bypassed."""

WEIGHT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What a weight can be to be adapted. Quantized weights, 8-bit floats too, stand for others by a scale kept apart."""


def head_names(model: nn.Module) -> list[str]:
    """Names of the parameters outside a Hugging Face model's backbone that it shares with no backbone parameter.

    A sequence classifier has a head; a language model whose output layer is its tied input embedding has none.
    """
    backbone = getattr(model, "base_model", model)
    if backbone is model:
        return []
    inside = {id(parameter) for parameter in backbone.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in inside]


def matches(name: str, pattern: str) -> bool:
    """Whether a shell pattern matches a module's dotted name or a dotted suffix of it, without regard to case."""
    parts = name.lower().split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[start:]), pattern.lower()) for start in range(len(parts)))


def linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """Every linear layer outside the head that can be adapted, by name.

    Its weight is a parameter (no parametrization computes it) that no other module shares, and its module is called.
    """
    head = set(head_names(model))
    bypassed = {
        id(child) for module in model.modules() if isinstance(module, READ_NOT_CALLED) for child in module.children()
    }
    owners: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):  # a module under two names is shared too
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LinearLayer)
        and id(module) not in bypassed
        and f"{name}.weight" not in head
        and owners.get(id(module.weight)) == 1
    }


def target_layers(model: nn.Module, patterns: Sequence[str]) -> dict[str, LinearLayer]:
    """The linear layers whose names match one of the patterns.

    Raises:
        AdapterError: a pattern matches nothing (the message lists what could be matched), or a layer's weight is
            quantized.
    """
    available = linear_layers(model)
    found = {n: layer for n, layer in available.items() if any(matches(n, pattern) for pattern in patterns)}
    unmatched = [pattern for pattern in patterns if not any(matches(n, pattern) for n in available)]
    # The default names what architectures call attention, of which a model has one; what a user names must be there.
    if not found or (unmatched and tuple(patterns) != ATTENTION):
        shapes = sorted({".".join("*" if part.isdigit() else part for part in name.split(".")) for name in available})
        raise AdapterError(
            f"targets {unmatched} match none of the {len(available)} linear layers of "
            f"{type(model).__name__}; it has: {', '.join(shapes) or 'none'}"
        )
    for name, layer in found.items():
        if layer.weight.dtype not in WEIGHT_DTYPES:
            raise AdapterError(
                f"{name} ({type(layer).__name__}) has a weight of {layer.weight.dtype}, which looks quantized: load "
                "the model without quantization (float32, bfloat16 or float16), or leave the layer out of "
                "method.targets"
            )
    return found


def layer_ranks(layers: Mapping[str, LinearLayer], config: RankedConfig) -> dict[str, int]:
    """The whole-number rank of each layer, by name: ``rank``, or that of the last ``rank_pattern`` that matches.

    Raises:
        AdapterError: a layer is too small for its rank, a share of it is below 1, or a pattern matches no layer.
    """
    for pattern in config.rank_pattern:
        if not any(matches(name, pattern) for name in layers):
            raise AdapterError(
                f"method.rank_pattern: {pattern!r} matches none of the {len(layers)} layers that method.targets "
                f"chooses: {', '.join(list(layers)[:4])}, ..."
            )
    ranks = {}
    for name, layer in layers.items():
        asked = [("method.rank", config.rank)]
        asked += [(f"method.rank_pattern.{p}", rank) for p, rank in config.rank_pattern.items() if matches(name, p)]
        key, rank = asked[-1]
        out_features, in_features = oriented(layer, layer.weight).shape
        try:
            ranks[name] = resolve_rank(rank, out_features, in_features)
        except AdapterError as error:
            raise AdapterError(f"{name} ({out_features} x {in_features}): {key}: {error}") from error
    return ranks
