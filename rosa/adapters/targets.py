"""Which layers of a model are adapted, at which rank, and which parameters are its task head."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import LinearLayer, oriented, weight_shape
from rosa.adapters.linalg.subspace import resolve_rank
from rosa.adapters.quantized import quant_state, quantized_problem
from rosa.config import ATTENTION, MethodConfig, RankedConfig, TargetedConfig
from rosa.errors import AdapterError
from rosa.utils.console import nearest
from rosa.utils.names import starred

WEIGHT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Dtypes of weights that can be adapted. Quantized weights, 8-bit floats too, need a scale that is stored apart."""


LOADED = "_is_hf_initialized"
"""The attribute with which transformers marks a parameter loaded from a checkpoint; copies of a model lack it."""


def head_names(model: nn.Module) -> list[str]:
    """Names of the parameters of a Hugging Face model's task head, and of all others that its loader initialized.

    The head is every parameter outside the backbone, except in language models, whose output layer is pretrained. Which
    parameters were missing from the checkpoint (for example the pooler, if it is of a masked language model) is known
    for a loaded model, but not for one that was built from a configuration or copied.
    """
    drawn = set(drawn_names(model))
    backbones: list[nn.Module] = [getattr(model, "base_model", model)]
    backbones += [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    backbones = [part for part in backbones if part is not model]
    if not backbones or _output_layer(model) is not None:
        return [name for name, _ in model.named_parameters() if name in drawn]
    inside = {id(parameter) for backbone in backbones for parameter in backbone.parameters()}
    return [name for name, parameter in model.named_parameters() if name in drawn or id(parameter) not in inside]


def drawn_names(model: nn.Module) -> list[str]:
    """Names of the parameters that were missing from the model's checkpoint; empty if that is unknown.

    Parameters that were made after the loading, as by ``resize_token_embeddings``, count as missing.
    """
    floats = [(name, parameter) for name, parameter in model.named_parameters() if parameter.dtype in WEIGHT_DTYPES]
    marks = {name: getattr(parameter, LOADED, False) for name, parameter in floats}
    return [name for name, loaded in marks.items() if not loaded] if any(marks.values()) else []


def named_head(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the parameters that match a pattern, or are in a module that matches, and those of :func:`drawn_names`.

    Raises:
        AdapterError: a pattern matches nothing, or matches a weight that is tied to another.
    """
    drawn = set(drawn_names(model))
    found = [name for name, _ in model.named_parameters() if name in drawn or _below(name, patterns)]
    ties = tied(model)
    for pattern in patterns:
        shared = next((f"{name} is tied to {ties[name]}" for name in ties if _below(name, [pattern])), None)
        if shared is not None:
            raise AdapterError(f"method.head: {pattern!r}: {shared}, so both would train; leave it out")
        if not any(_below(name, [pattern]) for name in found):
            children = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters()))
            raise AdapterError(
                f"method.head: {pattern!r} matches nothing in {type(model).__name__}; it has: {children}"
            )
    return found


def unasked_output(model: nn.Module, head: Sequence[str], patterns: Sequence[str]) -> dict[str, int]:
    """Parameters of a language model's output layer that are in its head without a pattern that names them, with sizes.

    It is so if the checkpoint lacked them, but also after ``resize_token_embeddings``, which makes a new output layer
    of the loaded one's values where it is not tied to the input embeddings.
    """
    output = _output_layer(model)
    inside = set() if output is None else {id(parameter) for parameter in output.parameters()}
    parameters = dict(model.named_parameters())
    return {
        name: parameters[name].numel() for name in head if id(parameters[name]) in inside and not _below(name, patterns)
    }


def _below(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches this parameter or a module that contains it."""
    parts = name.split(".")
    holders = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(matches(holder, pattern) for holder in holders for pattern in patterns)


def _output_layer(model: nn.Module) -> nn.Module | None:
    """The layer of a language model that maps hidden states to token logits; None for other models."""
    return model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None


def tied(model: nn.Module) -> dict[str, str]:
    """For each tied parameter, its further names mapped to its first name."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    names = ((name, first[id(parameter)]) for name, parameter in model.named_parameters(remove_duplicate=False))
    return {name: original for name, original in names if name != original}


def matches(name: str, pattern: str) -> bool:
    """Whether a shell pattern matches a module's dotted name or a dotted suffix of it, ignoring case."""
    parts = name.lower().split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[start:]), pattern.lower()) for start in range(len(parts)))


def linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """Every linear layer that can be adapted, by name, without the head and a language model's output layer.

    Layers whose weight, or its memory, is shared with another module, or computed by a parametrization, are left out;
    so is a model that is a linear layer itself, as there is nothing around it in which to replace it.
    """
    head = set(head_names(model))
    output = _output_layer(model)
    owners: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):  # a module under two names is shared too
        for parameter in module.parameters(recurse=False):
            owners[_memory(parameter)] = owners.get(_memory(parameter), 0) + 1
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LinearLayer)
        and module is not model
        and module is not output
        and f"{name}.weight" not in head
        and owners.get(_memory(module.weight)) == 1
    }


def _memory(tensor: torch.Tensor) -> int:
    """A number that two tensors share if a change in place of one changes the other."""
    # Other types, such as shards and quantized weights, may not say where they lie.
    plain = type(tensor) is nn.Parameter and tensor.data_ptr() != 0
    return tensor.data_ptr() if plain else id(tensor)


def matched_layers(model: nn.Module, patterns: Sequence[str]) -> dict[str, LinearLayer]:
    """The linear layers whose names match one of the patterns, whether or not they can be adapted.

    Raises:
        AdapterError: a pattern matches nothing; the message lists the available layers.
    """
    available = linear_layers(model)
    found = {n: layer for n, layer in available.items() if any(matches(n, pattern) for pattern in patterns)}
    unmatched = [pattern for pattern in patterns if not any(matches(n, pattern) for n in available)]
    # The default lists several architectures' names, of which a model has one; a user's patterns must all match.
    if not found or (unmatched and tuple(patterns) != ATTENTION):
        shapes = sorted({starred(name) for name in available})
        ties = "".join(
            f"; {name} is tied to {original}" for name, original in tied(model).items() if _below(name, unmatched)
        )
        ties += "".join(
            f"; {name} {reason}"
            for name, reason in _left_out(model, available).items()
            if any(matches(name, pattern) for pattern in unmatched)
        )
        raise AdapterError(
            f"targets {unmatched} match none of the {len(available)} linear layers of "
            f"{type(model).__name__}; it has: {', '.join(shapes) or 'none'}{ties}"
        )
    return found


def target_layers(model: nn.Module, patterns: Sequence[str], quantized: bool = False) -> dict[str, LinearLayer]:
    """The linear layers whose names match one of the patterns.

    Args:
        model: any model.
        patterns: shell patterns of names.
        quantized: whether layers that bitsandbytes has quantized to 4 bits can be adapted.

    Raises:
        AdapterError: as for :func:`matched_layers`; or a layer is quantized (or bitsandbytes is not installed),
            offloaded, sharded, or does not compute ``x W^T + b``.
    """
    found = matched_layers(model, patterns)
    for name, layer in found.items():
        refuse_problem(name, layer, "leave the layer out of method.targets", quantized)
    return found


def refuse_problem(name: str, layer: LinearLayer, otherwise: str, quantized: bool = False) -> None:
    """Refuse a layer that cannot be adapted.

    Args:
        name: of the layer.
        layer: with that name.
        otherwise: what can be done instead of making the layer fit.
        quantized: whether a layer that bitsandbytes has quantized to 4 bits can be adapted.

    Raises:
        AdapterError: names the layer, its class and the problem (:func:`layer_problem`).
    """
    narrow = quantized and quant_state(layer) is not None
    problem = quantized_problem() if narrow else layer_problem(layer)
    if problem is not None:
        raise AdapterError(f"{name} ({type(layer).__name__}) {problem}, or {otherwise}")


def _left_out(model: nn.Module, available: Mapping[str, LinearLayer]) -> dict[str, str]:
    """Why linear layers that :func:`linear_layers` leaves out are, by name; of a tied weight, :func:`tied` says it."""
    head, output = set(head_names(model)), _output_layer(model)
    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LinearLayer) or name in available:
            continue
        if layer is output:
            found[name] = "is the language model's output layer"
        elif f"{name}.weight" in head:
            found[name] = "is in the head (method.head), which trains whole"
        elif not isinstance(vars(layer)["_parameters"].get("weight"), nn.Parameter):
            found[name] = "has a weight that is computed at each call (a parametrization, pruning)"
    return found


def layer_problem(layer: LinearLayer) -> str | None:
    """The reason why a layer cannot be adapted, with a remedy; None if it can."""
    weight = layer.weight
    if weight.dtype not in WEIGHT_DTYPES:
        return (
            f"has a weight of {weight.dtype}, which looks quantized: load the model without quantization (float32, "
            "bfloat16 or float16)"
        )
    if weight.is_meta:
        return "has its weight on the meta device, as after offloading: load the model onto one device"
    if weight.numel() == 0 or hasattr(weight, "device_mesh"):
        return "holds only a shard of its weight (ZeRO-3, FSDP): attach before the model is sharded"
    if any(step == 0 and size > 1 for step, size in zip(weight.stride(), weight.shape, strict=True)):
        return "has an expanded weight, whose rows or columns share memory: give it weight.clone()"
    if not _multiplies(layer):
        return "does not compute x W^T + b: it subclasses a linear layer with another forward. Adapt other layers"
    return None


@torch.no_grad()
def _multiplies(layer: LinearLayer) -> bool:
    """Whether the layer computes ``x W^T + b``: known from its forward, or else tested on inputs of several scales."""
    if "forward" not in vars(layer) and type(layer).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    weight = oriented(layer, layer.weight)
    stream = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(5, weight.shape[1], generator=stream, device="cpu")
    x = x * torch.tensor([[1e-3], [1e-1], [1.0], [1e1], [1e3]], device="cpu")
    x = x.to(weight.device, weight.dtype)
    expected = functional.linear(x, weight, layer.bias)
    try:
        actual = layer(x)
    except (RuntimeError, IndexError, TypeError, ValueError):
        return False
    if not isinstance(actual, torch.Tensor) or actual.shape != expected.shape:
        return False
    size = expected.abs().amax(dim=1).float()
    difference = (actual - expected).abs().amax(dim=1).float()
    return bool((difference <= 4 * torch.finfo(weight.dtype).eps ** 0.75 * size).all())


def by_pattern(
    layers: Iterable[str], option: str, value: Any, patterns: Mapping[str, Any]
) -> dict[str, tuple[str, Any]]:
    """The key that sets an option for each layer, and its value: the last matching pattern's, or else the option's.

    Args:
        layers: names.
        option: of the method, such as ``rank``.
        value: of the option.
        patterns: of ``<option>_pattern``: values by pattern of layer names.

    Raises:
        AdapterError: a pattern matches no layer.
    """
    names = list(layers)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            *before, last = pattern.rsplit(".", 1)
            meant = nearest(last.strip("*"), {name.rpartition(".")[2] for name in names})
            raise AdapterError(
                f"method.{option}_pattern: {pattern!r} matches none of the {len(names)} layers that method.targets "
                f"chooses{meant.replace('mean ', 'mean ' + '.'.join([*before, '']))}: {', '.join(names[:4])}, ..."
            )
    found = {}
    for name in names:
        asked = [(f"method.{option}", value)]
        asked += [(f"method.{option}_pattern.{p}", own) for p, own in patterns.items() if matches(name, p)]
        found[name] = asked[-1]
    return found


def layer_ranks(layers: Mapping[str, LinearLayer], config: RankedConfig) -> dict[str, int]:
    """The integer rank of each layer, by name: from the last matching ``rank_pattern``, or else ``rank``.

    Raises:
        AdapterError: a rank exceeds min(out, in), a fractional rank is below 1 there, or a pattern matches no layer.
    """
    ranks = {}
    for name, (key, rank) in by_pattern(layers, "rank", config.rank, config.rank_pattern).items():
        out_features, in_features = weight_shape(layers[name])
        try:
            ranks[name] = resolve_rank(rank, out_features, in_features)
        except AdapterError as error:
            raise AdapterError(f"{name} ({out_features} x {in_features}): {key}: {error}") from error
    return ranks


def refuse_unfit(model: nn.Module, config: MethodConfig) -> None:
    """Refuse names and ranks of a method that fit no layer of a model, which may be without values (the meta device).

    Raises:
        AdapterError: the message names the pattern, or the layer and its rank.
    """
    if not isinstance(config.head, str):
        named_head(model, config.head)
    if isinstance(config, TargetedConfig):
        layers = matched_layers(model, config.targets)
        if isinstance(config, RankedConfig) and getattr(config, "low_rank", True):
            layer_ranks(layers, config)
