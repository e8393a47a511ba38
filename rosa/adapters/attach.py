"""Attach a method to a model: the one dispatch by the type of its configuration."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from rosa.adapters.base import Adapter, oriented
from rosa.adapters.modules import ATTRIBUTE, AdaptedLayer, Attachment, attachment, refuse_wrapper, replace
from rosa.adapters.targets import drawn_names, head_names, named_head, target_layers
from rosa.config import MethodConfig, TargetedConfig
from rosa.config.registry import builder
from rosa.errors import AdapterError, ConfigError


def attach(
    model: nn.Module, config: MethodConfig, *, generator: torch.Generator | None = None, verbose: bool = True
) -> nn.Module:
    """Make a model trainable by one method, in place, and print what was adapted.

    Afterwards exactly the method's factors and, unless ``head="freeze"``, the head have gradients, in float32 or wider;
    everything else is frozen. The function that the model computes is unchanged.

    Args:
        model: any PyTorch model with ``nn.Linear`` or GPT-2's ``Conv1D`` layers; a head is recognised in Hugging Face
            models.
        config: ``RosaConfig``, ``LoraConfig``, ``IA3Config``, ``FullConfig``, or that of a registered method.
        generator: CPU generator for subspaces and initial factors; PyTorch's global one where None.
        verbose: print the table of adapted layers.

    Returns:
        The same model.

    Raises:
        AdapterError: something is attached already, nothing matches the targets, or a layer cannot have the rank;
            the model is then as it was.
    """
    present = attachment(model)
    if present is not None:
        raise AdapterError(
            f"{type(model).__name__} has {present.method} attached already; call rosa.merge(model) first"
        )
    try:
        build = builder(config)
    except ConfigError as error:
        raise AdapterError(str(error)) from error
    refuse_wrapper(model)
    head = _head(model, config)
    total = sum(parameter.numel() for parameter in model.parameters())
    trained_before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    built: list[tuple[str, Adapter]] = []
    try:
        if build is None:
            model.requires_grad_(True)
        else:
            # Frozen before wrapping: an adapter's own factors are born trainable.
            model.requires_grad_(False)
            built = list(build(model, config, generator))
    except Exception:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained_before)
        raise
    layers = [_describe(name, adapter) for name, adapter in built]
    for name, adapter in built:
        replace(model, name, adapter)
    parameters = dict(model.named_parameters())
    for name in head:
        parameters[name].requires_grad_(config.head != "freeze")
    cast = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            wide = torch.promote_types(parameter.dtype, torch.float32)
            if parameter.dtype != wide:
                cast.append((name, parameter.dtype))
                parameter.data = parameter.data.to(wide)
    head_trainable = sum(parameters[name].numel() for name in head if parameters[name].requires_grad)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    done = Attachment(
        config.name, config, tuple(layers), tuple(head), trainable - head_trainable, head_trainable, total, tuple(cast)
    )
    setattr(model, ATTRIBUTE, done)
    if verbose:
        print(done.table(), flush=True)
    return model


def _head(model: nn.Module, config: MethodConfig) -> list[str]:
    """Names of the parameters of the head, as the configuration asks for it; a random head that stays is announced."""
    if isinstance(config.head, str):
        drawn = drawn_names(model)
        if config.head == "freeze" and drawn:
            warnings.warn(
                f"method.head=freeze: {', '.join(drawn)} were not in the checkpoint, and stay as random as they are",
                stacklevel=3,
            )
        return head_names(model)
    head = named_head(model, config.head)
    if isinstance(config, TargetedConfig):
        both = [name for name in target_layers(model, config.targets) if f"{name}.weight" in head]
        if both:
            raise AdapterError(f"{both[0]} is named by method.head and by method.targets: expected one of them")
    return head


def _describe(name: str, adapter: Adapter) -> AdaptedLayer:
    out_features, in_features = oriented(adapter.base, adapter.base.weight).shape
    trainable = sum(factor.numel() for factor in adapter.factors().values() if factor.requires_grad)
    return AdaptedLayer(name, type(adapter.base).__name__, (out_features, in_features), adapter.rank, trainable)
