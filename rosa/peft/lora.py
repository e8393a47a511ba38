"""Save an adapter of ROSA, or one without a sparse part of RoSA, as an ordinary LoRA adapter."""

from __future__ import annotations

import copy
import functools
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from peft.tuners.lora import conversion
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.modules import ATTRIBUTE
from rosa.adapters.targets import LOADED, tied
from rosa.config import RobustConfig
from rosa.errors import ExportError
from rosa.export.peft_adapter import TOLERANCE, PeftExport, to_peft
from rosa.peft.config import TunerConfig
from rosa.peft.layer import TunerLinear
from rosa.peft.rosa import own_copy

MARK = "rosa_as_lora"
"""The attribute that marks a function of PEFT that was replaced."""


def save_as_lora(
    model: PeftModel, folder: str | Path, *, adapter_name: str | None = None, tolerance: float = TOLERANCE
) -> PeftExport:
    """Write the change of an adapter as a LoRA adapter; the model is not changed.

    In ROSA, a layer's change has at most rank 2 R for each subspace visited. Modules that ``modules_to_save`` names are
    saved whole (:func:`rosa.export.to_peft`).

    Args:
        model: of ``get_peft_model``.
        folder: the target; as ``save_pretrained`` does, this replaces files of the same names and leaves others.
        adapter_name: the adapter's name; by default the active one.
        tolerance: largest truncated share of each layer's change (Frobenius norm).

    Raises:
        ExportError: the adapter is not one of ours, it has a sparse part, a module of ``modules_to_save`` is tied to
            another, or :func:`rosa.export.to_peft` refuses.
    """
    name = model.active_adapter if adapter_name is None else adapter_name
    _require_adapter(model, name)
    config = model.peft_config[name]
    if not isinstance(config, TunerConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise ExportError(f"as_lora: adapter {name!r} is of {kind}; peft.save_as_lora converts some other methods")
    method = config.method()
    if isinstance(method, RobustConfig) and method.sparse:
        raise ExportError(
            f"as_lora: adapter {name!r} is of RoSA (robust adaptation), whose sparse part has full rank, so no LoRA "
            "adapter of a low rank represents it. save_pretrained(folder) saves it exactly, to be loaded after import "
            "rosa.peft; merge_and_unload() makes a plain model; peft.save_as_lora(folder, model, rank=...) saves an "
            "approximation"
        )
    _refuse_tied(model.get_base_model(), name)
    base, plain = without_adapters(model, None), without_adapters(model, name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".as_lora.") as unfinished:
        inside = Path(unfinished, folder.resolve().name)
        done = to_peft(base, plain, inside, tolerance=tolerance, origin=f"Trained with {model.base_model.title}.")
        for path in done.folder.iterdir():
            path.replace(folder / path.name)
    return replace(done, folder=folder)


@torch.no_grad()
def without_adapters(model: PeftModel, adapter_name: str | None) -> nn.Module:
    """A plain copy of the wrapped model: the pretrained one, or with one adapter merged.

    It shares every parameter that the adapter does not change with the model.

    Args:
        model: of ``get_peft_model``; not changed.
        adapter_name: the adapter to merge; None for the pretrained model.
    """
    inner = model.get_base_model()
    twins: dict[int, Any] = {id(tensor): tensor for tensor in (*inner.parameters(), *inner.buffers())}
    for module in inner.modules():
        if isinstance(module, TunerLinear):
            twins[id(module)] = _plain_layer(module, adapter_name)
        elif isinstance(module, ModulesToSaveWrapper):
            kept = module.modules_to_save
            pretrained = module.original_module
            chosen = pretrained if adapter_name is None or adapter_name not in kept else kept[adapter_name]
            for own, theirs in zip(chosen.parameters(), pretrained.parameters(), strict=True):
                _mark(own, theirs)
            twins[id(module)] = chosen
    twin = copy.deepcopy(inner, twins)
    for name in ("peft_config", ATTRIBUTE):
        vars(twin).pop(name, None)
    return twin


def _plain_layer(layer: TunerLinear, adapter_name: str | None) -> LinearLayer:
    plain = own_copy(layer.base_layer, layer.pretrained())
    _mark(plain.weight, layer.base_layer.weight)
    if adapter_name is not None and adapter_name in layer.adapters:
        oriented(plain, plain.weight).copy_(layer.weight_of(adapter_name))
    return plain


def _mark(copied: Tensor, original: Tensor) -> None:
    """Keep on a copy what transformers noted on the original: whether it was in the checkpoint."""
    if hasattr(original, LOADED):
        setattr(copied, LOADED, getattr(original, LOADED))


def teach_save_pretrained() -> None:
    """Add the argument ``as_lora`` to ``PeftModel.save_pretrained``, which would ignore it; does so once."""
    original: Callable[..., None] = PeftModel.save_pretrained
    if hasattr(original, MARK):
        return

    @functools.wraps(original)
    def save_pretrained(
        self: PeftModel, save_directory: str | Path, *args: Any, as_lora: bool = False, **kwargs: Any
    ) -> None:
        if not as_lora:
            original(self, save_directory, *args, **kwargs)
            return
        chosen = kwargs.pop("selected_adapters", None)
        writes = kwargs.pop("is_main_process", True)
        if args or kwargs:
            given = ", ".join([*(repr(one) for one in args), *kwargs])
            raise ExportError(f"save_pretrained(as_lora=True) takes selected_adapters and is_main_process, not {given}")
        if chosen is not None and len(chosen) != 1:
            raise ExportError(f"save_pretrained(as_lora=True): selected_adapters={chosen}: expected one name in a list")
        if writes:
            save_as_lora(self, save_directory, adapter_name=None if chosen is None else chosen[0])

    setattr(save_pretrained, MARK, True)
    PeftModel.save_pretrained = save_pretrained  # type: ignore[method-assign]


def teach_convert_to_lora() -> None:
    """Let ``peft.convert_to_lora``, and so ``peft.save_as_lora``, give heads whole for our adapters; does so once.

    PEFT names each tensor of a head by the last part of its name alone, and takes those of every adapter: of a head of
    several layers it keeps one, and of several adapters the last. For adapters of other methods, nothing changes.
    """
    original: Callable[..., Any] = conversion.convert_to_lora
    if hasattr(original, MARK):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def convert_to_lora(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        model, name = given.arguments["model"], given.arguments["adapter_name"]
        ours = any(isinstance(module, TunerLinear) for module in model.modules())
        if ours:
            _require_adapter(model, name)
        config, state = original(*args, **kwargs)
        return config, _with_whole_heads(model, name, state) if ours else state

    setattr(convert_to_lora, MARK, True)
    for module in (conversion, peft.tuners.lora, peft.tuners, peft):
        module.convert_to_lora = convert_to_lora  # type: ignore[attr-defined]


def _with_whole_heads(model: nn.Module, adapter_name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a converted adapter, with all of its own modules of ``modules_to_save`` and no others."""
    done = dict(state)
    for name, wrapper in model.named_modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            done = {key: tensor for key, tensor in done.items() if not key.startswith(f"{name}.")}
            if adapter_name in wrapper.modules_to_save:
                tensors = wrapper.modules_to_save[adapter_name].state_dict()
                done |= {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}
    return done


def _refuse_tied(model: nn.Module, adapter_name: str) -> None:
    """Check that no module of ``modules_to_save`` is tied to another, as a token embedding is to the output layer.

    Raises:
        ExportError: one is; once trained it is tied no more, so the plain model is another than the pretrained one.
    """
    ties = [pair for pair in tied(model).items() if any(".original_module." in name for name in pair)]
    for name, wrapper in model.named_modules():
        if isinstance(wrapper, ModulesToSaveWrapper) and adapter_name in wrapper.modules_to_save:
            for pair in ties:
                others = [one for one in pair if not one.startswith(f"{name}.")]
                if len(others) == 1:
                    raise ExportError(
                        f"as_lora: {name} of modules_to_save is tied to {others[0]} in the pretrained model, and no "
                        "more once it is trained. save_pretrained(folder) saves the adapter exactly; "
                        "peft.save_as_lora(folder, model, rank=...) saves an approximation by LoRA"
                    )


def _require_adapter(model: nn.Module, name: str) -> None:
    """Check that a model has an adapter of this name.

    Raises:
        ExportError: it has not.
    """
    present: Any = getattr(model, "peft_config", {})
    if name not in present:
        raise ExportError(f"adapter {name!r}: the model has {', '.join(map(repr, present))}")
