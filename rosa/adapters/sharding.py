"""A resample of weights that FSDP keeps in shards (``torch.distributed.fsdp.fully_shard``).

A factorization needs a whole weight. The processes gather the layers in turn; of n layers each process keeps one and
factorizes it. Then every layer is gathered again, moved to its subspace on each process, and cut into the shards. At no
time does a process hold more than two adapted layers whole.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from rosa.adapters.base import ResampledAdapter, whole
from rosa.adapters.linalg.subspace import Factors
from rosa.adapters.resampling import exchanged


def reshard(model: nn.Module) -> None:
    """Free the whole parameters that a forward pass without a backward pass left gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gathered(adapter: ResampledAdapter) -> ResampledAdapter:
    """A copy of an adapter with whole parameters."""
    twins: dict[int, Any] = {
        id(parameter): nn.Parameter(_copied(parameter.detach()), requires_grad=parameter.requires_grad)
        for parameter in adapter.parameters()
    }
    return copy.deepcopy(adapter, twins)


def _copied(tensor: Tensor) -> Tensor:
    """A whole copy of a tensor; gathered shards are a new tensor already."""
    found = whole(tensor)
    here = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return found.clone() if found.data_ptr() == here.data_ptr() else found


@torch.no_grad()
def scatter(source: ResampledAdapter, adapter: ResampledAdapter) -> None:
    """Copy the state of a gathered adapter into the shards of the original."""
    for tensor, new in zip(_tensors(adapter), _tensors(source), strict=True):
        if isinstance(tensor, DTensor):
            cut = distribute_tensor(new.detach(), tensor.device_mesh, tensor.placements)
            tensor.to_local().copy_(cut.to_local())
        else:
            tensor.copy_(new)
    extra = source.state_dict().get("_extra_state")
    if extra is not None:
        adapter.set_extra_state(extra)


def move_sharded(members: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> list[float]:
    """Move adapters whose parameters are sharded over all processes to the drawn subspaces, in place.

    Returns:
        Seconds of factorization for each adapter.

    Raises:
        FactorizationError: a weight is not finite or cannot be factorized; no adapter was moved.
    """
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    factors: dict[int, Factors] = {}
    seconds: dict[int, float] = {}
    failed: Exception | None = None
    for first in range(0, len(members), processes):
        mine: ResampledAdapter | None = None
        for i in range(first, min(first + processes, len(members))):
            one = gathered(members[i])  # a collective operation, so in every process
            mine = one if i % processes == rank else mine
            del one  # or it would be kept while the next one is gathered
        if mine is None:
            continue
        start = time.perf_counter()
        try:
            ((factors[first + rank],), _) = type(mine).factorize([mine], [drawn[first + rank]])
        except Exception as error:  # told to the others below, who would wait for this process's layers
            failed = error
        seconds[first + rank] = time.perf_counter() - start
        del mine
    reports = exchanged(seconds, failed)
    for i, member in enumerate(members):
        one = gathered(member)
        pair = Factors(*(_agreed(factors.get(i), key, one, i % processes) for key in range(2)))
        one.before_move()
        one.enter(pair, drawn[i])
        one.after_move()
        scatter(one, member)
        del one
    return [reports[i % processes][i] for i in range(len(members))]


def _agreed(factors: Factors | None, key: int, adapter: ResampledAdapter, source: int) -> Tensor:
    """The factor A (key 0) or B (1) that one process computed, on all."""
    factor = adapter.factors()["AB"[key]]
    tensor = torch.empty_like(factor.detach()) if factors is None else factors[key].to(factor).contiguous()
    distributed.broadcast(tensor, src=source)
    return tensor


def _tensors(adapter: nn.Module) -> Iterable[Tensor]:
    yield from (parameter.detach() for parameter in adapter.parameters())
    yield from adapter.buffers()
