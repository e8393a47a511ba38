"""Which methods and ranks can be measured side by side on a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks import BenchmarkError
from benchmarks.contenders import RANK
from benchmarks.measured import Case, cases_at
from rosa.adapters.base import weight_shape
from rosa.adapters.ia3 import build as scaled_layers
from rosa.adapters.targets import target_layers
from rosa.config import ATTENTION, IA3Config
from rosa.errors import AdapterError
from rosa.training.costs import parameter_memory
from rosa.utils.formatting import MIB

GIB = 1024 * MIB
MORE_MODELS = 6
"""Models' worth of memory beside one for each case: the plain model, its copy before any method, and what full
fine-tuning adds, which are gradients, two moments and the temporary tensors of clipping."""


def possible_cases(
    plain: nn.Module, ranks: Sequence[int], asked: str, free: int | None
) -> tuple[list[Case], list[str]]:
    """The cases that can be measured side by side on a model, and a sentence on each reason why others cannot.

    Args:
        plain: the model; not changed.
        ranks: those wanted.
        asked: what the user wrote after ``model=``, for the message.
        free: bytes of memory; None if that is not known.

    Raises:
        BenchmarkError: too narrow a layer, or too large a model.
    """
    said = []
    narrowest = min(min(weight_shape(layer)) for layer in target_layers(plain, ATTENTION).values())
    if narrowest < RANK:
        raise BenchmarkError(f"model={asked}: an adapted layer has a side of {narrowest}, and methods have rank {RANK}")
    fitting = [rank for rank in ranks if rank <= narrowest]
    if fitting != list(ranks):
        said.append(f"Only ranks up to {narrowest}, the smallest side of an adapted layer.")
    without: set[str] = set()
    try:
        list(scaled_layers(plain, IA3Config(), None))
    except AdapterError as error:
        without.add("ia3")
        said.append(f"Without (IA)3: {error}.")
    cases = [case for case in cases_at(fitting) if case[0] not in without]
    if free is not None and _needed(plain, cases) > free:
        cases = [case for case in cases if case[1] in (0, RANK)]
        said.append(f"Only rank {RANK}: all methods are measured side by side, a model each, and memory is short.")
        if _needed(plain, cases) > free:
            raise BenchmarkError(
                f"model={asked}: all methods are measured side by side, a model each, which takes about "
                f"{_needed(plain, cases) / GIB:.1f} GiB; {free / GIB:.1f} GiB are free"
            )
    return cases, said


def _needed(plain: nn.Module, cases: Sequence[Case]) -> int:
    return (len(cases) + MORE_MODELS) * parameter_memory(plain)["weights_bytes"]


def free_memory(device: str) -> int | None:
    """Bytes that models can take on a device; None if the system does not say."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
