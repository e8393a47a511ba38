"""Attach a method to a model, chosen by the type of its configuration."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from rosa.adapters.base import Adapter, weight_shape
from rosa.adapters.checkpointing import support_checkpointing
from rosa.adapters.modules import (
    ATTRIBUTE,
    AdaptedLayer,
    Attachment,
    attachment,
    merge,
    refuse_flat_shards,
    refuse_tuned,
    refuse_wrapper,
    replace,
)
from rosa.adapters.probe import Probe
from rosa.adapters.targets import (
    WEIGHT_DTYPES,
    drawn_names,
    head_names,
    linear_layers,
    matches,
    named_head,
    unasked_output,
)
from rosa.config import MethodConfig, TargetedConfig
from rosa.config.registry import builder
from rosa.errors import AdapterError, ConfigError
from rosa.utils.seeding import require_cpu


def attach(
    model: nn.Module,
    config: MethodConfig,
    *,
    generator: torch.Generator | None = None,
    verbose: bool = True,
    example: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Wrap the target layers of a model with one method's adapters, in place, and print a table of them.

    Afterwards only the method's factors and, unless ``head="freeze"``, the head are trainable, in float32 or wider; all
    other parameters are frozen. The function that the model computes is unchanged (except under
    ``factorization=svd_add``, which adds the drawn triplets to the weights).

    Args:
        model: any PyTorch model with ``nn.Linear`` or GPT-2's ``Conv1D`` layers; the head is found automatically in
            Hugging Face models.
        config: ``RosaConfig``, ``LoraConfig``, ``IA3Config``, ``FullConfig``, or that of a registered method; copied.
        generator: CPU generator for subspaces and initial factors; None for PyTorch's global one.
        verbose: print the table of adapted layers.
        example: keyword arguments of the model's forward, on its device. The model is then run on them before and
            after; a changed output is an error, and a warning names the layers on which no output depends.

    Returns:
        The same model.

    Raises:
        AdapterError: a method is attached already, no layer matches the targets, the rank does not fit a layer, the
            head has a parameter of an adapted layer, or the model has adapters of PEFT or is under FSDP1 or ZeRO-3; the
            model is then unchanged. Or an output for the example has changed; the adapters are then merged again.
        ConfigError: an option has been set to a value that its configuration refuses; the model is unchanged.
    """
    present = attachment(model)
    if present is not None:
        raise AdapterError(
            f"{type(model).__name__} has {present.method} attached already; call {present.removal} first"
        )
    try:
        build = builder(config)
    except ConfigError as error:
        raise AdapterError(str(error)) from error
    config = copy.deepcopy(config)  # adapters read it for as long as they live
    config.__post_init__()
    refuse_wrapper(model)
    refuse_tuned(model)
    refuse_flat_shards(model)
    _refuse_inference_mode(model)
    require_cpu(generator)
    head = _head(model, config)
    _refuse_untrainable(model, head, config)
    if isinstance(config, TargetedConfig):  # some builds change the weights, so before them
        _refuse_both((name for name in linear_layers(model) if any(matches(name, p) for p in config.targets)), head)
    total = sum(parameter.numel() for parameter in model.parameters())
    trained_before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    probe = None if example is None else Probe(model, example)
    built: list[tuple[str, Adapter]] = []
    try:
        if build is None:
            model.requires_grad_(True)
        else:
            # Before wrapping, because the adapters' factors must stay trainable.
            model.requires_grad_(False)
            built = list(build(model, config, generator))
            _refuse_both((name for name, _ in built), head)
    except Exception:
        _restore_flags(model, trained_before)
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
    support_checkpointing(model)
    if probe is not None:
        try:
            if config.keeps_function:
                probe.require_same(model)
            probe.warn_of_idle(model)
        except Exception:  # also the model's own, which may call a layer in a way that no adapter knows
            merge(model)
            _restore_flags(model, trained_before)
            raise
    if verbose:
        print(done.table(), flush=True)
    return model


def _refuse_inference_mode(model: nn.Module) -> None:
    made = next((name for name, parameter in model.named_parameters() if parameter.is_inference()), None)
    if made is not None:
        raise AdapterError(
            f"{made} was made under torch.inference_mode, so it cannot train: load the model outside of it"
        )
    if torch.is_inference_mode_enabled():
        raise AdapterError("attach: factors made under torch.inference_mode cannot train; call it outside it")


def _refuse_untrainable(model: nn.Module, head: list[str], config: MethodConfig) -> None:
    """Refuse to train what has no gradient, or a scale that is stored apart: integers, 8-bit floats."""
    trains = set(head) if config.head != "freeze" else set()
    for name, parameter in model.named_parameters():
        narrow = parameter.dtype not in WEIGHT_DTYPES and not parameter.is_complex()
        if narrow and (name in trains or config.name == "full"):
            instead = "adapt chosen layers by another method" if config.name == "full" else "name another method.head"
            raise AdapterError(
                f"{name} is of {parameter.dtype} and cannot train: load the model without quantization (float32, "
                f"bfloat16 or float16), or {instead}"
            )


def _restore_flags(model: nn.Module, trained: set[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def _head(model: nn.Module, config: MethodConfig) -> list[str]:
    """Names of the head's parameters under ``config.head``.

    Warns if randomly initialized ones are frozen, or if a language model's output layer trains without being named.
    """
    if config.head == "freeze":
        drawn = drawn_names(model)
        if drawn:
            warnings.warn(
                f"method.head=freeze: {', '.join(drawn)} were not in the checkpoint (or were made after it was "
                "loaded, as by resize_token_embeddings), and stay as they were initialized",
                stacklevel=3,
            )
        return head_names(model)
    patterns: tuple[str, ...] = () if isinstance(config.head, str) else tuple(config.head)
    head = named_head(model, patterns) if patterns else head_names(model)
    unasked = unasked_output(model, head, patterns)
    if unasked:
        warnings.warn(
            f"{', '.join(unasked)}: the output layer of {type(model).__name__} trains whole "
            f"({sum(unasked.values()):,} parameters): it was not in the checkpoint, or was made after it was loaded, "
            "as by resize_token_embeddings. method.head=freeze keeps it as it is",
            stacklevel=3,
        )
    return head


def _refuse_both(adapted: Iterable[str], head: Iterable[str]) -> None:
    """Refuse a head that has parameters of adapted layers, whose factors train instead of them."""
    layers = set(adapted)
    both = next((name for name in head if name.rpartition(".")[0] in layers), None)
    if both is not None:
        raise AdapterError(
            f"{both} is in both method.head and method.targets: expected one of them; method.head names it, or it was "
            "not in the checkpoint"
        )


def _describe(name: str, adapter: Adapter) -> AdaptedLayer:
    out_features, in_features = weight_shape(adapter.base)
    trainable = sum(factor.numel() for factor in adapter.factors().values() if factor.requires_grad)
    return AdaptedLayer(name, type(adapter.base).__name__, (out_features, in_features), adapter.rank, trainable)
