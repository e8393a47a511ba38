"""The optimizer of adapted layers: whether it updates the factors themselves, and its state of them at a resample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from rosa.adapters.base import Adapter, ResampledAdapter, whole
from rosa.errors import AdapterError

PRUNED_SHARE = 0.9
"""The share of a factor's entries whose moments ``optimizer_state=prune`` sets to zero."""
FIRST_MOMENTS = ("exp_avg", "momentum_buffer")
"""Names of the mean gradient in the state of PyTorch's optimizers, Adam's and its kin and those with momentum."""


def require_trains(optimizer: Any, found: Mapping[str, Adapter]) -> None:
    """Refuse an optimizer that does not update the trainable factors of these adapters themselves.

    An optimizer made before the adapters were added trains none of them. One that trains copies (DeepSpeed's ZeRO, and
    others with float32 master weights) writes these over the factors at its next step, so that all that a resample or
    the choice of a support has written into them is lost.

    Args:
        optimizer: a ``torch.optim.Optimizer``, or a wrapper with its ``state`` and ``param_groups``.
        found: adapters by dotted name.

    Raises:
        AdapterError: it is no optimizer, or lacks a trainable factor; names the factor and what would be right.
    """
    groups = getattr(optimizer, "param_groups", None)
    if groups is None or not isinstance(getattr(optimizer, "state", None), Mapping):
        raise AdapterError(
            f"optimizer={optimizer!r}: expected a torch.optim.Optimizer, or None to leave its state alone"
        )
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    wanted = {
        f"{prefix}.{name}": factor
        for prefix, adapter in found.items()
        for name, factor in adapter.factors().items()
        if factor.requires_grad
    }
    missing = [name for name, factor in wanted.items() if id(factor) not in trained]
    if missing:
        raise AdapterError(
            f"{type(optimizer).__name__} does not train {missing[0]} ({len(missing)} of {len(wanted)} trainable "
            "factors are missing): expected an optimizer of the model's parameters themselves, made after the adapters "
            "were added. One that trains copies of them (DeepSpeed's ZeRO, float32 master weights) would undo a "
            "resample at its next step; use DistributedDataParallel or fully_shard (FSDP2)"
        )


def refuse_unprunable(optimizer: Any, found: Mapping[str, ResampledAdapter]) -> None:
    """Refuse to prune a state without a first moment, or of codes instead of values, as of 8-bit optimizers.

    Raises:
        AdapterError: a factor of an adapter with ``optimizer_state=prune`` has such a state.
    """
    for prefix, adapter in found.items():
        if adapter.optimizer_state() != "prune":
            continue
        for name, factor in adapter.factors().items():
            for state in _states(optimizer, factor):
                moments = _moments(state, factor)
                for key, moment in moments.items():
                    if not moment.is_floating_point():
                        raise AdapterError(
                            f"{prefix}.{name}: the optimizer's {key} is of {moment.dtype}, so optimizer_state=prune "
                            "cannot find the largest moments: use optimizer_state=reset, or an optimizer that is not "
                            "quantized"
                        )
                kept = [key for key, value in state.items() if isinstance(value, Tensor) and value.ndim]
                if kept and _first_moment(moments) is None:
                    raise AdapterError(
                        f"{prefix}.{name}: {type(optimizer).__name__} keeps {', '.join(kept)}, but no first moment "
                        f"({' or '.join(FIRST_MOMENTS)}), by which optimizer_state=prune chooses what to drop: use "
                        "optimizer_state=reset, or an optimizer with momentum, such as AdamW"
                    )


def treat_state(optimizer: Any, factor: nn.Parameter, treatment: str) -> None:
    """Clear or prune an optimizer's state of a factor, which belongs to the subspace before a resample.

    Args:
        optimizer: checked by :func:`require_trains`.
        factor: a parameter.
        treatment: ``reset``, ``keep`` or ``prune``.
    """
    if treatment == "reset":
        forget(optimizer, factor)
    elif treatment == "prune":
        for state in _states(optimizer, factor):
            prune_moments(state, factor)


def forget(optimizer: Any, factor: nn.Parameter) -> None:
    """Clear an optimizer's state of a parameter, with the step count, so that bias correction restarts."""
    for one in _optimizers(optimizer):
        one.state.pop(factor, None)


def forget_all(optimizer: Any) -> None:
    """Clear an optimizer's state of every parameter."""
    for one in _optimizers(optimizer):
        one.state.clear()


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """An optimizer and those within it: ``ZeroRedundancyOptimizer`` has its state in an optimizer of its own."""
    seen: set[int] = set()
    while isinstance(getattr(optimizer, "state", None), Mapping) and id(optimizer) not in seen:
        seen.add(id(optimizer))
        yield optimizer
        inner = getattr(optimizer, "optimizer", None)  # accelerate's wrapper
        optimizer = getattr(optimizer, "optim", None) if inner is None else inner


def _states(optimizer: Any, factor: nn.Parameter) -> list[MutableMapping[str, Any]]:
    """The states of a parameter, each once."""
    found = [one.state[factor] for one in _optimizers(optimizer) if factor in one.state]
    return list({id(state): state for state in found}.values())


@torch.no_grad()
def prune_moments(state: MutableMapping[str, Any], factor: Tensor) -> None:
    """Zero every moment at the 90 % of entries with the largest absolute first moments, in place.

    All moments share one mask: a nonzero first moment with a zero second moment would cause a huge step. Moments in
    shards (``fully_shard``) have the mask of the whole one; every process must call this.

    Args:
        state: an optimizer's state of one parameter, checked by :func:`refuse_unprunable`; its tensors of the
            parameter's shape are the moments. Without a first one, as before the first update, nothing is done.
        factor: the parameter.
    """
    moments = _moments(state, factor)
    name = _first_moment(moments)
    if name is None:
        return
    first = whole(moments[name])
    pruned = torch.zeros(first.shape, dtype=torch.uint8, device=first.device)
    pruned.view(-1)[first.abs().flatten().topk(round(PRUNED_SHARE * first.numel())).indices] = 1
    for moment in moments.values():
        here, mask = _local(moment, pruned)
        here.masked_fill_(mask.bool(), 0)


def _moments(state: Mapping[str, Any], factor: Tensor) -> dict[str, Tensor]:
    """The tensors of the parameter's shape in an optimizer's state of it."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == factor.shape}


def _first_moment(moments: Mapping[str, Tensor]) -> str | None:
    """The name of the first moment, wherever it is in the state; None if there is none."""
    if {"state1", "state2"} <= moments.keys():  # bitsandbytes: without a second moment, its first may be anything
        return "state1"
    return next((name for name in FIRST_MOMENTS if name in moments), None)


def _local(moment: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A moment and its mask; of a sharded one (``fully_shard``) what this process holds, for which all must call."""
    if not hasattr(moment, "device_mesh"):
        return moment, mask
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(moment, DTensor)
    return moment.to_local(), distribute_tensor(mask, moment.device_mesh, moment.placements).to_local()
