"""The tensors of a model that training changes and a checkpoint must hold, and the hash of all others."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from rosa.adapters.modules import adapters, unwrapped
from rosa.errors import AdapterError


def changing_names(model: nn.Module) -> list[str]:
    """Sorted names of the tensors that training changes: what a checkpoint must hold beside the pretrained weights.

    These are the trainable parameters, what adapters name (:meth:`Adapter.changing`), and BatchNorm's running
    statistics; other buffers that a model's own forward changes are not known.
    Names are those of the model inside a wrapper (``torch.compile``, ``DistributedDataParallel``).
    """
    model = unwrapped(model)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, adapter in adapters(model):
        names.update(f"{prefix}.{name}" for name in adapter.changing())
    for prefix, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:  # a frozen one's means change as well
            names.update(f"{prefix}.{name}".lstrip(".") for name, _ in module.named_buffers(recurse=False))
    return sorted(names)


def undecayed_names(model: nn.Module) -> set[str]:
    """Names of the parameters that adapters exempt from weight decay."""
    return {f"{prefix}.{name}" for prefix, adapter in adapters(model) for name in adapter.undecayed()}


def rate_ratios(model: nn.Module) -> dict[str, float]:
    """By name, the parameters with a learning rate of their own: its ratio to the run's learning rate."""
    return {f"{prefix}.{name}": ratio for prefix, a in adapters(model) for name, ratio in a.rate_ratios().items()}


def changing_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of :func:`changing_names`, detached."""
    state = unwrapped(model).state_dict()
    return {name: state[name].detach() for name in changing_names(model)}


def frozen_hash(model: nn.Module) -> str:
    """SHA-256 over every tensor of a model's state that training does not change, with its name, dtype and shape.

    It depends on neither the device nor the order of the modules. With full fine-tuning, only buffers are hashed.
    """
    model = unwrapped(model)
    state, changing = model.state_dict(), set(changing_names(model))
    trained = {state[name].data_ptr() for name in changing if state[name].numel()}
    digest = hashlib.sha256()
    for name in sorted(state.keys() - changing):
        if state[name].data_ptr() in trained:  # tied to one that training changes, as GPT-2's output layer
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_changing_state(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors saved from :func:`changing_state` into a model, in place.

    Args:
        model: a model with the same method attached.
        tensors: the saved tensors.
        source: where they come from, for the error message.

    Raises:
        AdapterError: names or shapes differ, as in a checkpoint of another method or rank.
    """
    state = unwrapped(model).state_dict()
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
