"""Move all adapters of a model to new subspaces, across processes, and update the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from rosa.adapters.base import ResampledAdapter
from rosa.adapters.linalg.subspace import Factors
from rosa.adapters.modules import adapters, adding, refuse_flat_shards
from rosa.errors import AdapterError, FactorizationError
from rosa.utils.seeding import require_cpu

PRUNED_SHARE = 0.9
"""The share of a factor's entries whose moments ``optimizer_state=prune`` sets to zero."""


def resampled(model: nn.Module) -> dict[str, ResampledAdapter]:
    """The adapters of a model that can be resampled, by dotted name; empty for other methods."""
    return {name: adapter for name, adapter in adapters(model) if isinstance(adapter, ResampledAdapter)}


def resample(
    model: nn.Module,
    *,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, float]:
    """Move every resampled adapter to a new subspace, in place.

    The model computes the same function before and after (except under ``factorization=svd_add``, which adds the drawn
    triplets to the weights). Under ``torch.distributed`` each process factorizes its share of the layers and broadcasts
    the result, so that all processes hold bitwise equal weights.

    Args:
        model: a model with ROSA attached.
        generator: CPU generator of the draws; None for PyTorch's global one.
        optimizer: its state of the factors, which belongs to the old subspace, is treated according to the adapters'
            ``optimizer_state``; None leaves it unchanged.

    Returns:
        Seconds of factorization by layer.

    Raises:
        AdapterError: the model has no such adapter or is under FSDP1 or ZeRO-3, ``generator`` or ``optimizer`` is
            something else, its state cannot be pruned, or a weight is not finite or cannot be factorized; the model and
            the optimizer are then unchanged.
    """
    found = resampled(model)
    if not found:
        call = adding(model, "RosaConfig")
        raise AdapterError(f"{type(model).__name__} has nothing to resample; adapt a plain model by {call}")
    require_cpu(generator)
    if optimizer is not None and not isinstance(getattr(optimizer, "state", None), Mapping):
        raise AdapterError(
            f"optimizer={optimizer!r}: expected a torch.optim.Optimizer, or None to leave its state alone"
        )
    refuse_flat_shards(model)
    _refuse_unprunable(optimizer, found)
    # Every process draws for every layer, so that the generators stay in the same state.
    drawn = [adapter.draw(generator) for adapter in found.values()]
    members = list(found.values())
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        seconds = _move_sharded(model, members, drawn) if _is_sharded(model) else _move_shared(members, drawn)
    else:
        seconds = move(members, drawn)
    if optimizer is not None:
        for adapter in found.values():
            for factor in adapter.factors().values():
                _treat_state(optimizer, factor, adapter.optimizer_state())
    return dict(zip(found, seconds, strict=True))


def move(members: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> list[float]:
    """Move adapters of one class to the drawn subspaces, in place.

    Returns:
        Seconds of factorization for each adapter.

    Raises:
        FactorizationError: a weight is not finite or cannot be factorized; no adapter was moved.
    """
    factors, seconds = _factorize(members, drawn)
    for member, pair, chosen in zip(members, factors, drawn, strict=True):
        member.before_move()
        member.enter(pair, chosen)
        member.after_move()
    return seconds


def _factorize(members: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> tuple[list[Factors], list[float]]:
    return type(members[0]).factorize(members, drawn) if members else ([], [])


def _move_shared(members: list[ResampledAdapter], drawn: list[Tensor]) -> list[float]:
    """Like :func:`move`, with n processes: each factorizes every n-th adapter and broadcasts the result."""
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    mine = list(range(rank, len(members), processes))
    factors: list[Factors] = []
    seconds: list[float] = []
    problem: str | None = None
    try:
        factors, seconds = _factorize([members[i] for i in mine], [drawn[i] for i in mine])
    except AdapterError as error:
        problem = str(error)
    # Before any move: if one process failed, the others would wait forever for its layers.
    reports: list[Any] = [None] * processes
    distributed.all_gather_object(reports, (seconds, problem))
    problems = [problem for _, problem in reports if problem is not None]
    if problems:
        raise FactorizationError("; ".join(problems))
    for member in members:
        member.before_move()
    for i, pair in zip(mine, factors, strict=True):
        members[i].enter(pair, drawn[i])
    for i, member in enumerate(members):
        tensors = member.state_dict()
        for name in member.changing():
            distributed.broadcast(tensors[name], src=i % processes)
        member.after_move()
    return [reports[i % processes][0][i // processes] for i in range(len(members))]


def _is_sharded(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to the model or to a part of it: their classes then have ``unshard``."""
    return any(hasattr(type(module), "unshard") for module in model.modules())


def _move_sharded(model: nn.Module, members: list[ResampledAdapter], drawn: list[Tensor]) -> list[float]:
    """As :func:`move`, for a model under ``fully_shard``."""
    from rosa.adapters import sharding  # which loads torch.distributed.fsdp

    sharding.reshard(model)
    return sharding.move_sharded(members, drawn)


def _refuse_unprunable(optimizer: torch.optim.Optimizer | None, found: Mapping[str, ResampledAdapter]) -> None:
    """Refuse to prune quantized moments, as of 8-bit optimizers: the tensors hold codes, not the moments' values."""
    if optimizer is None:
        return
    for prefix, adapter in found.items():
        if adapter.optimizer_state() != "prune":
            continue
        for name, factor in adapter.factors().items():
            for key, moment in optimizer.state.get(factor, {}).items():
                if isinstance(moment, Tensor) and moment.shape == factor.shape and not moment.is_floating_point():
                    raise AdapterError(
                        f"{prefix}.{name}: the optimizer's {key} is of {moment.dtype}, so optimizer_state=prune cannot "
                        "find the largest moments: use optimizer_state=reset, or an optimizer that is not quantized"
                    )


def _treat_state(optimizer: torch.optim.Optimizer, factor: nn.Parameter, treatment: str) -> None:
    if treatment == "reset":
        optimizer.state.pop(factor, None)  # with the step count, so that bias correction restarts
    elif treatment == "prune" and factor in optimizer.state:
        prune_moments(optimizer.state[factor], factor)


@torch.no_grad()
def prune_moments(state: dict[str, Any], factor: Tensor) -> None:
    """Zero every moment at the 90 % of entries with the largest absolute first moments, in place.

    All moments share one mask: a nonzero first moment with a zero second moment would cause a huge step.

    Args:
        state: an optimizer's state of one parameter; its tensors of the parameter's shape are the moments, the first
            moment first, as in every PyTorch optimizer.
        factor: the parameter.
    """
    moments = [value for value in state.values() if isinstance(value, Tensor) and value.shape == factor.shape]
    if not moments:
        return
    count = round(PRUNED_SHARE * factor.numel())
    largest = moments[0].abs().flatten().topk(count).indices
    for moment in moments:
        moment.view(-1)[largest] = 0
