"""Find, insert and merge the adapters of a model, and describe what was attached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rosa.adapters.base import Adapter
from rosa.adapters.checkpointing import end_support
from rosa.adapters.quantized import quant_state
from rosa.errors import AdapterError
from rosa.utils.formatting import aligned
from rosa.utils.names import starred

ATTRIBUTE = "rosa_attachment"
"""The model's attribute that holds its :class:`Attachment`."""

HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_pre_hooks", "_backward_hooks"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_is_full_backward_hook"),
)
"""The attributes in which PyTorch keeps the hooks of a module's calls."""

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


@dataclass(frozen=True)
class AdaptedLayer:
    """One adapted layer, as in the table that ``attach`` prints and in a run's record."""

    name: str
    kind: str
    shape: tuple[int, int]
    """(out, in)."""
    rank: int | None
    trainable: int


@dataclass(frozen=True)
class Attachment:
    """The method attached to a model, with its layers, head and parameter counts."""

    method: str
    config: Any
    layers: tuple[AdaptedLayer, ...]
    head: tuple[str, ...]
    """Names of the task head's parameters."""
    trainable_parameters: int
    """Trainable parameters outside the head."""
    head_parameters: int
    """Trainable parameters of the head."""
    total_parameters: int
    """Parameters of the model before adapters were attached."""
    cast: tuple[tuple[str, torch.dtype], ...] = ()
    """Parameters converted to float32 for training, with their original dtypes."""
    removal: str = "rosa.merge(model)"
    """The call that removes the method from the model."""
    prefix: str = "method."
    """Prefix of the options of ``config`` in messages."""
    beside: tuple[Any, ...] = ()
    """The configurations of other adapters that are in use on the same model, as PEFT allows."""

    def table(self) -> str:
        """A text table of the layers, grouped by name pattern, kind, shape and rank, and of the parameter counts."""
        groups: dict[tuple[str, str, tuple[int, int], int | None], list[AdaptedLayer]] = {}
        for layer in self.layers:
            groups.setdefault((starred(layer.name), layer.kind, layer.shape, layer.rank), []).append(layer)
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


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers such as those of ``torch.compile`` and ``DistributedDataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, WRAPPERS):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def refuse_wrapper(model: nn.Module) -> None:
    """Refuse a wrapped model: the wrapper has already registered the parameters, without the adapters' factors.

    Raises:
        AdapterError: the model is a wrapper; the message names it.
    """
    inner = unwrapped(model)
    if inner is not model:
        wrapper = type(model).__name__
        raise AdapterError(f"{wrapper} wraps {type(inner).__name__}: attach to the inner model first, then wrap it")


def refuse_tuned(model: nn.Module) -> None:
    """Refuse a model with adapters of PEFT: their matrices are linear layers, which would be adapted in turn.

    Raises:
        AdapterError: a module is a layer of PEFT's; the message names it.
    """
    for name, module in model.named_modules():
        if any(kind.__name__ == "BaseTunerLayer" for kind in type(module).__mro__):  # without importing peft
            raise AdapterError(
                f"{name or type(model).__name__} has an adapter of PEFT: attach to the plain model that "
                "model.merge_and_unload() or model.unload() gives, or add the method through rosa.peft instead"
            )


def refuse_flat_shards(model: nn.Module) -> None:
    """Refuse a model whose weights are flattened and sharded by FSDP1 or by DeepSpeed's ZeRO-3.

    A resample, a merge and the gradient of a whole weight need to read or replace one layer's full weight during
    training, which neither of the two supports.

    Raises:
        AdapterError: a module is FSDP's wrapper, or a parameter is ZeRO-3's; says what can be used.
    """
    for name, module in model.named_modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise AdapterError(
                f"{name or type(model).__name__} is wrapped by FullyShardedDataParallel (FSDP1), which flattens its "
                "weights: use fully_shard (FSDP2; in accelerate, fsdp_version: 2) after adapters are added, or "
                "DistributedDataParallel"
            )
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id") or hasattr(parameter, "ds_status"):
            raise AdapterError(
                f"{name} is partitioned by DeepSpeed's ZeRO-3, which keeps flat pieces of weights: use "
                "DistributedDataParallel, or fully_shard (FSDP2) after adapters are added"
            )


def attachment(model: nn.Module) -> Attachment | None:
    """The attachment of this model, or of a model that it wraps or contains; None without one.

    Raises:
        AdapterError: ``model`` is not a ``torch.nn.Module``.
    """
    return next((present for _, present in attachments(model)), None)


def attachments(model: nn.Module) -> Iterator[tuple[nn.Module, Attachment]]:
    """Each part of a model to which a method was attached, with the attachment: several, if parts have their own.

    Raises:
        AdapterError: ``model`` is not a ``torch.nn.Module``.
    """
    _require_model(model)
    for module in model.modules():
        if ATTRIBUTE in vars(module):
            yield module, vars(module)[ATTRIBUTE]


def attachment_of(
    model: nn.Module, has: Callable[[nn.Module], object], options: Iterable[str] = ()
) -> Attachment | None:
    """The attachment of the part of a model that a callback handles; if no part qualifies, any attachment.

    Args:
        model: any model.
        has: whether a part has adapters that the callback handles.
        options: names of the configuration's options that control the callback.

    Raises:
        AdapterError: several such parts, or adapters in use on one, have different values of an option.
    """
    parts = list(attachments(model))
    if len(parts) == 1 and not parts[0][1].beside:  # the common case, called at each update
        return parts[0][1]
    found = [present for module, present in parts if has(module)]
    configs = [config for present in found for config in (present.config, *present.beside)]
    for other in configs[1:]:
        for option in options:
            one, another = getattr(configs[0], option), getattr(other, option)
            if one != another:
                what = "parts" if len(parts) > 1 else "active adapters"
                raise AdapterError(
                    f"{type(model).__name__} has {what} with {option}={one!r} and with {option}={another!r}, but one "
                    "schedule for all: add them with equal values"
                )
    return found[0] if found else attachment(model)


def adding(model: nn.Module | None, config: str) -> str:
    """The calls that add a method to this model, for messages: through PEFT where its adapters are PEFT's.

    Args:
        model: any model; None if it is unknown.
        config: the class of the method's configuration, such as ``RosaConfig``.
    """
    through_peft = f"peft.get_peft_model(model, rosa.peft.{config}(...))"
    if hasattr(model, "peft_config"):
        return through_peft
    call = f"rosa.attach(model, rosa.{config}(...))"
    return f"{call} or {through_peft}" if model is None or attachment(model) is None else call


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise AdapterError(f"model={model!r}: expected a torch.nn.Module")


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """The adapters of a model that are in use, with their dotted names, in the order of its modules.

    Raises:
        AdapterError: ``model`` is not a ``torch.nn.Module``.
    """
    _require_model(model)
    for name, module in model.named_modules():
        if isinstance(module, Adapter) and module.active:
            yield name, module


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of this dotted name; the new one takes over its hooks and its training or evaluation mode.

    A hook belongs to what the layer computes, which the adapter does now: on the wrapped layer it would see, or change,
    the frozen part alone. The handles that remove hooks work before and after.
    """
    parent_name, _, child = name.rpartition(".")
    old = model.get_submodule(name)
    module.train(old.training)
    for kind in HOOKS:
        vars(module)[kind], vars(old)[kind] = vars(old)[kind], vars(module)[kind]
    setattr(model.get_submodule(parent_name), child, module)


def merge(model: nn.Module, *, dequantize: bool = False) -> nn.Module:
    """Fold every adapter into its layer, in place: the model has its original module classes again.

    A model without adapters is left unchanged. Parameters stay frozen or trainable as they were while attached. A
    wrapper (``torch.compile``, ``DistributedDataParallel``, ``AveragedModel``) stays around the merged model.

    Args:
        model: with or without adapters.
        dequantize: make plain layers of those whose weight is quantized, in the dtype that it was quantized from.

    Returns:
        The same model.

    Raises:
        AdapterError: another library attached the adapters; the message names the call that removes them. Or a weight
            is quantized, and ``dequantize`` is False; the model is then unchanged.
    """
    found = attachment(model)
    if found is not None and found.removal != Attachment.removal:
        raise AdapterError(f"{type(model).__name__}: {found.method} was not attached by rosa.attach; {found.removal}")
    for name, adapter in adapters(model):
        if quant_state(adapter.base) is not None and not dequantize:
            raise AdapterError(
                f"{name}: its weight is quantized to 4 bits, to which the merged one would be rounded again; keep the "
                "adapter, or get plain layers from rosa.merge(model, dequantize=True)"
            )
    with torch.inference_mode(False):  # tensors made under it could not train afterwards
        for name, adapter in list(adapters(model)):
            replace(model, name, adapter.merge())
        for module, present in list(attachments(model)):
            parameters = dict(module.named_parameters())
            for name, dtype in present.cast:
                if name in parameters:  # a head may have been replaced since by another
                    parameters[name].data = parameters[name].data.to(dtype)
            delattr(module, ATTRIBUTE)
            end_support(module)
    return model
