"""Move all adapters of a model to new subspaces, across processes, and update the optimizer's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from rosa.adapters.base import ResampledAdapter
from rosa.adapters.linalg.subspace import Factors
from rosa.adapters.modules import adapters, adding, refuse_flat_shards
from rosa.adapters.optimizer_state import refuse_unprunable, require_trains, treat_state
from rosa.errors import AdapterError, FactorizationError
from rosa.utils.distributed import grouped
from rosa.utils.seeding import require_cpu


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
    triplets to the weights). The factors' gradients, which belong to the old subspace, are cleared. Under
    ``torch.distributed`` each process factorizes its share of the layers and broadcasts the result, so that all
    processes hold bitwise equal weights.

    Args:
        model: a model with ROSA attached.
        generator: CPU generator of the draws; None for PyTorch's global one.
        optimizer: the one that trains the factors. Its state of them, which belongs to the old subspace, is treated
            according to the adapters' ``optimizer_state``; None leaves it unchanged.

    Returns:
        Seconds of factorization by layer.

    Raises:
        AdapterError: the model has no such adapter or is under FSDP1 or ZeRO-3, ``generator`` or ``optimizer`` is
            something else, the optimizer does not train the factors themselves, its state cannot be pruned, or a weight
            is not finite or cannot be factorized; the model and the optimizer are then unchanged.
    """
    found = resampled(model)
    if not found:
        call = adding(model, "RosaConfig")
        raise AdapterError(f"{type(model).__name__} has nothing to resample; adapt a plain model by {call}")
    require_cpu(generator)
    refuse_flat_shards(model)
    if optimizer is not None:
        require_trains(optimizer, found)
        refuse_unprunable(optimizer, found)
    # Every process draws for every layer, so that the generators stay in the same state.
    drawn = [adapter.draw(generator) for adapter in found.values()]
    members = list(found.values())
    if grouped():
        seconds = _move_sharded(model, members, drawn) if _is_sharded(model) else _move_shared(members, drawn)
    else:
        seconds = move(members, drawn)
    for adapter in found.values():
        for factor in adapter.factors().values():
            factor.grad = None  # of the old subspace; a step with it would be along the wrong directions
            if optimizer is not None:
                treat_state(optimizer, factor, adapter.optimizer_state())
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
    failed: Exception | None = None
    try:
        factors, seconds = _factorize([members[i] for i in mine], [drawn[i] for i in mine])
    except Exception as error:
        failed = error
    reports = exchanged(seconds, failed)
    for member in members:
        member.before_move()
    for i, pair in zip(mine, factors, strict=True):
        members[i].enter(pair, drawn[i])
    for i, member in enumerate(members):
        tensors = member.state_dict()
        for name in member.changing():
            distributed.broadcast(tensors[name], src=i % processes)
        member.after_move()
    return [reports[i % processes][i // processes] for i in range(len(members))]


def exchanged(seconds: Any, failed: Exception | None) -> list[Any]:
    """What each process measured while it factorized its layers; all must call this before any of them moves one.

    Otherwise the others would wait for the layers of a process that failed, until a timeout.

    Args:
        seconds: of this process.
        failed: the error that this process met, of any kind (memory that is not enough, too).

    Raises:
        Exception: ``failed``, if it says nothing about a weight.
        FactorizationError: a process failed; with what each of them said.
    """
    problem = failed if failed is None or isinstance(failed, AdapterError) else f"{type(failed).__name__}: {failed}"
    reports: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(reports, (seconds, None if problem is None else str(problem)))
    if failed is not None and not isinstance(failed, AdapterError):
        raise failed
    problems = [said for _, said in reports if said is not None]
    if problems:
        raise FactorizationError("; ".join(problems))
    return [measured for measured, _ in reports]


def _is_sharded(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to the model or to a part of it: their classes then have ``unshard``."""
    return any(hasattr(type(module), "unshard") for module in model.modules())


def _move_sharded(model: nn.Module, members: list[ResampledAdapter], drawn: list[Tensor]) -> list[float]:
    """As :func:`move`, for a model under ``fully_shard``."""
    from rosa.adapters import sharding  # which loads torch.distributed.fsdp

    sharding.reshard(model)
    return sharding.move_sharded(members, drawn)
