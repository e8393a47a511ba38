"""Find the modules that fine-tuning changed, grouped by how a PEFT adapter can store them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rosa.adapters import attachment, head_names
from rosa.adapters.targets import linear_layers
from rosa.errors import ExportError

SHOWN = 3
"""Number of names that a message lists; it counts the rest."""


@dataclass(frozen=True)
class Difference:
    """The modules in which a fine-tuned model differs from the pretrained one, by dotted name."""

    layers: tuple[str, ...]
    """Linear layers of the backbone whose weight or bias changed."""
    biases: tuple[str, ...]
    """Linear layers of the backbone whose bias changed."""
    whole: tuple[str, ...]
    """Modules that are saved in full: the task's head, and every other changed module that is not such a layer."""


def compare(base: nn.Module, plain: nn.Module) -> Difference:
    """Find what changed between two plain models.

    A head is saved even if it did not change: loading the pretrained model elsewhere would initialize another one.

    Args:
        base: the pretrained model.
        plain: the same model after fine-tuning and ``rosa.merge``.

    Raises:
        ExportError: the two are not the same model, an adapter is attached, a value is not finite, or something
            changed that no adapter can store.
    """
    for model, role in ((base, "base"), (plain, "plain")):
        refuse_attached(model, role)
    _refuse_others(base, plain)
    refuse_not_finite(plain)
    before = dict(base.named_parameters())
    changed = {
        name for name, after in plain.named_parameters() if not torch.equal(after, before[name].to(after.device))
    }
    head = {*head_names(base), *head_names(plain)}  # copying a model loses which parameters were newly initialized
    linear = {name: layer for name, layer in linear_layers(plain).items() if f"{name}.weight" not in head}
    whole = {_head_module(plain, name, head) for name in head}
    for name in sorted(changed - head):
        owner = name.rpartition(".")[0]
        if owner not in linear:
            _refuse_what_cannot_go_along(plain, name)
            whole.add(owner)
    return Difference(
        layers=tuple(name for name in linear if {f"{name}.weight", f"{name}.bias"} & changed),
        biases=tuple(name for name in linear if f"{name}.bias" in changed),
        whole=tuple(name for name, _ in plain.named_modules() if name in whole),
    )


def refuse_attached(model: nn.Module, role: str) -> None:
    """Refuse a model with an attached adapter; ``role`` is the argument's name.

    Raises:
        ExportError: an adapter is attached; names its method.
    """
    present = attachment(model)
    if present is not None:
        raise ExportError(f"{role}: {type(model).__name__} has {present.method} attached; call rosa.merge on it first")


def refuse_not_finite(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        ExportError: a parameter is not finite; names the parameters.
    """
    broken = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if broken:
        raise ExportError(f"weights that are not finite cannot be exported: {_listed(broken)}; training diverged")


def _refuse_others(base: nn.Module, plain: nn.Module) -> None:
    """Refuse two models whose parameters differ in name, shape or dtype, or whose buffers differ in value."""
    before, after = dict(base.named_parameters()), dict(plain.named_parameters())
    problems = [f"{name} is only in plain" for name in after if name not in before]
    problems += [f"{name} is only in base" for name in before if name not in after]
    for name in before.keys() & after.keys():
        here, there = before[name], after[name]
        if here.shape != there.shape:
            problems.append(f"{name} is {tuple(here.shape)} in base and {tuple(there.shape)} in plain")
        elif here.dtype != there.dtype:
            problems.append(f"{name} is {here.dtype} in base and {there.dtype} in plain")
    if problems:
        raise ExportError(f"base is not the model that plain was made from: {_listed(sorted(problems))}")
    buffers = dict(base.named_buffers())
    moved = [name for name, buffer in plain.named_buffers() if not _same(buffer, buffers.get(name))]
    if moved:
        raise ExportError(
            f"buffers changed, which a PEFT adapter cannot store: {_listed(moved)}; export the merged model"
        )


def _same(buffer: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(buffer, other.to(buffer.device))


def _head_module(model: nn.Module, name: str, head: set[str]) -> str:
    """The outermost module that contains this head parameter and no parameter of the backbone."""
    parts = name.split(".")[:-1]
    for end in range(1, len(parts) + 1):
        module = ".".join(parts[:end])
        if all(f"{module}.{inner}" in head for inner, _ in model.get_submodule(module).named_parameters()):
            return module
    raise ExportError(
        f"{name} is in a module of {type(model).__name__} that also has backbone parameters, so a PEFT adapter cannot "
        "store it separately; export the merged model"
    )


def _refuse_what_cannot_go_along(model: nn.Module, name: str) -> None:
    """Refuse a changed parameter that is tied to another or whose module has children: no module can replace it."""
    parameter = model.get_parameter(name)
    names = [other for other, shared in model.named_parameters(remove_duplicate=False) if shared is parameter]
    if len(names) > 1:
        raise ExportError(
            f"the tied weight {' and '.join(names)} changed, which a PEFT adapter cannot store as one; export the "
            "merged model"
        )
    owner = name.rpartition(".")[0]
    if not owner or any(True for _ in model.get_submodule(owner).children()):
        raise ExportError(
            f"{name} changed, but its module contains other modules, so a PEFT adapter cannot store it; export the "
            "merged model"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
