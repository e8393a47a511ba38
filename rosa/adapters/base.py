"""What an adapter is, and how a model is taken apart and put together around one.

An adapter wraps one linear layer (``nn.Linear`` or GPT-2's ``Conv1D``), owns its trainable factors, and can give the
plain layer back with its effect folded in. Weights are spoken of as (out, in) throughout; :func:`oriented` hides that
``Conv1D`` stores (in, out).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.subspace import resolve_rank
from rosa.columns import aligned
from rosa.config import ATTENTION, RankedConfig

LinearLayer = nn.Linear | Conv1D
"""The layers that can be adapted."""

READ_NOT_CALLED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""PyTorch's modules that read the weights of the layers in them without calling those: an adapter would be bypassed."""

WEIGHT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What a weight can be to be adapted. Quantized weights, 8-bit floats too, stand for others by a scale kept apart."""


class AdapterError(ValueError):
    """A model or layer that cannot be adapted as asked; the message names the layer and what would be right."""


def oriented(layer: LinearLayer, weight: Tensor) -> Tensor:
    """A layer's weight as (out, in), or an (out, in) tensor in the layer's own layout: a view either way."""
    return weight.T if isinstance(layer, Conv1D) else weight


class Adapter(nn.Module):
    """One wrapped linear layer. Subclasses own the factors, the forward pass and the fold."""

    base: LinearLayer
    rank: int | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight in the base layer's layout, for model code that asks a layer for its dtype or device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return self.base.bias

    def factors(self) -> dict[str, nn.Parameter]:
        """The adapter's own parameters by name, trainable or not."""
        raise NotImplementedError

    def changing(self) -> list[str]:
        """Names, within this module, of every tensor that training changes: what a checkpoint must hold."""
        return list(self.factors())

    def undecayed(self) -> list[str]:
        """Names, within this module, of factors that weight decay must leave alone."""
        return []

    def merge(self) -> LinearLayer:
        """Fold the adapter into the base layer, in place, and return that layer."""
        raise NotImplementedError

    def fold(self, weight: Tensor, bias: Tensor | None = None) -> LinearLayer:
        """Give the base layer this (out, in) weight, cast once to its own dtype."""
        with torch.no_grad():
            oriented(self.base, self.base.weight).copy_(weight)
            if bias is not None:
                self.base.bias.copy_(bias)
        return self.base


class AddingAdapter(Adapter):
    """An adapter whose effect is a matrix added to the base layer's weight."""

    def delta_weight(self) -> Tensor:
        """What is added (out, in), float32, without gradient."""
        raise NotImplementedError

    def merged_weight(self) -> Tensor:
        """The base's weight with :meth:`delta_weight` added (out, in), float32 or the base's dtype if that is wider."""
        return oriented(self.base, self.base.weight.detach()) + self.delta_weight()

    def merge(self) -> LinearLayer:
        """The base layer with the merged weight."""
        return self.fold(self.merged_weight())


class ResampledAdapter(AddingAdapter):
    """An adapter that can move to a new subspace without changing the function it computes."""

    visited: Tensor | None
    """(min(out, in),) bool: the positions in the descending spectrum that were drawn so far; None without singular
    triplets."""

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Choose the next subspace: all that chance decides, on the CPU."""
        raise NotImplementedError

    @staticmethod
    def move(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> list[float]:
        """Move adapters of this class to the drawn subspaces, in place: the same Parameter objects stay.

        Returns:
            Seconds spent on each.
        """
        raise NotImplementedError

    def optimizer_state(self) -> str:
        """What becomes of the optimizer's state of the factors at a resample: ``reset``, ``keep`` or ``prune``."""
        raise NotImplementedError


@dataclass(frozen=True)
class AdaptedLayer:
    """One line of the table that ``attach`` prints and the record keeps."""

    name: str
    kind: str
    shape: tuple[int, int]
    """(out, in)."""
    rank: int | None
    trainable: int


@dataclass(frozen=True)
class Attachment:
    """What ``attach`` did to a model."""

    method: str
    config: Any
    layers: tuple[AdaptedLayer, ...]
    head: tuple[str, ...]
    """Names of the task head's parameters."""
    trainable_parameters: int
    """Without the head."""
    head_parameters: int
    """Trainable parameters of the head."""
    total_parameters: int
    """Of the model as it was given, without adapters."""
    cast: tuple[tuple[str, torch.dtype], ...] = ()
    """Parameters made float32 to be trained, and what they were."""

    def table(self) -> str:
        """The layers, grouped by kind, shape and rank, and the parameter counts."""
        groups: dict[tuple[str, str, tuple[int, int], int | None], list[AdaptedLayer]] = {}
        for layer in self.layers:
            pattern = ".".join("*" if part.isdigit() else part for part in layer.name.split("."))
            groups.setdefault((pattern, layer.kind, layer.shape, layer.rank), []).append(layer)
        rows = [("layer", "kind", "out x in", "rank", "count", "trainable")]
        for (pattern, kind, shape, rank), members in groups.items():
            trainable = sum(member.trainable for member in members)
            shown_rank = "-" if rank is None else str(rank)
            rows.append((pattern, kind, f"{shape[0]} x {shape[1]}", shown_rank, str(len(members)), f"{trainable:,}"))
        lines = aligned(rows) if len(rows) > 1 else []
        share = 100 * self.trainable_parameters / self.total_parameters
        lines.append(
            f"{self.method}: {self.trainable_parameters:,} trainable parameters ({share:.2f} % of "
            f"{self.total_parameters:,}) and {self.head_parameters:,} in the head"
        )
        return "\n".join(lines)


ATTRIBUTE = "rosa_attachment"
"""Where a model keeps its :class:`Attachment`."""


def attachment(model: nn.Module) -> Attachment | None:
    """What was attached to this model, or None for a plain one."""
    return getattr(model, ATTRIBUTE, None)


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """The adapters of a model by dotted name, in the order of its modules."""
    for name, module in model.named_modules():
        if isinstance(module, Adapter):
            yield name, module


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
        except ValueError as error:
            raise AdapterError(f"{name} ({out_features} x {in_features}): {key}: {error}") from error
    return ranks


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with this dotted name, in that one's mode (training or evaluation)."""
    parent_name, _, child = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent_name), child, module)


def merge(model: nn.Module) -> nn.Module:
    """Fold every adapter into its layer, in place: the original module classes, no trace of an adapter.

    Does nothing to a plain model, so merging twice is merging once. Parameters stay frozen or trainable as they were
    under the adapter.

    Returns:
        The same model.
    """
    for name, adapter in list(adapters(model)):
        replace(model, name, adapter.merge())
    present = attachment(model)
    if present is not None:
        for name, dtype in present.cast:
            parameter = model.get_parameter(name)
            parameter.data = parameter.data.to(dtype)
        delattr(model, ATTRIBUTE)
    return model


def changing_names(model: nn.Module) -> list[str]:
    """Names of every tensor that training changes: what a checkpoint must hold beside the pretrained weights."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, adapter in adapters(model):
        names.update(f"{prefix}.{name}" for name in adapter.changing())
    return sorted(names)


def undecayed_names(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay must leave alone."""
    return {f"{prefix}.{name}" for prefix, adapter in adapters(model) for name in adapter.undecayed()}


def changing_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of :func:`changing_names`, detached."""
    state = model.state_dict()
    return {name: state[name].detach() for name in changing_names(model)}


def load_changing_state(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load what :func:`changing_state` gave, in place.

    Args:
        model: a model with the same method attached.
        tensors: the saved tensors.
        source: where they come from, for the error message.

    Raises:
        AdapterError: names or shapes differ, as with a checkpoint of another method or rank.
    """
    state = model.state_dict()
    expected = changing_names(model)
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is not expected" for name in tensors if name not in set(expected)]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(state[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != state[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise AdapterError(
            f"{source} is a checkpoint of another method, rank or model: {'; '.join(problems[:3])}{more}. "
            "Remove it, or start over with train.force=true"
        )
    with torch.no_grad():
        for name in expected:
            state[name].copy_(tensors[name])
