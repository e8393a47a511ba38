"""Costs of an adapted layer's step by counting: operator calls, bytes kept for the backward pass, bytes allocated.

Counts hold on every machine, where times do not; `make benchmark` measures times.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rosa.adapters import attach
from rosa.config import LoraConfig, MethodConfig, RosaConfig

OUT, IN, ROWS, RANK = 48, 64, 10, 4
FLOAT = 4
VIEWS = {
    "view",
    "permute",
    "_unsafe_view",
    "t",
    "transpose",
    "expand",
    "detach",
    "slice",
    "alias",
    "unsqueeze",
    "squeeze",
    "as_strided",
}
"""Operators that move no data."""


class Calls(TorchDispatchMode):
    """Counts the operators that run within it, and the bytes of their results, without those of views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.names[name] += 1
            results = result if isinstance(result, (tuple, list)) else [result]
            self.bytes += sum(one.numel() * one.element_size() for one in results if isinstance(one, Tensor))
        return result


def adapted(config: MethodConfig) -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({"attention": nn.Linear(IN, OUT)})
    return attach(model, config, generator=torch.Generator().manual_seed(0), verbose=False)["attention"]


def counted(layer: nn.Module, bf16: bool = False) -> tuple[Calls, int]:
    """The operators of a forward and backward pass, and the bytes kept in between beside the parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(ROWS, IN, requires_grad=True)
    with Calls() as calls, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = layer(x)
        held = sum(kept.values())
        out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters() if parameter.requires_grad)
    return calls, held


ROSA, LORA = RosaConfig(rank=RANK), LoraConfig(rank=RANK)


def test_rosa_keeps_its_input_and_what_passes_between_the_factors() -> None:
    _, held = counted(adapted(ROSA))
    assert held == FLOAT * ROWS * (IN + RANK)


@pytest.mark.parametrize("bf16", [False, True])
def test_rosa_keeps_no_more_than_lora(bf16: bool) -> None:
    assert counted(adapted(ROSA), bf16)[1] <= counted(adapted(LORA), bf16)[1]


@pytest.mark.parametrize("bf16", [False, True])
def test_rosa_calls_fewer_operators_and_makes_fewer_bytes_than_lora(bf16: bool) -> None:
    ours, theirs = (counted(adapted(config), bf16)[0] for config in (ROSA, LORA))
    assert ours.names.total() < theirs.names.total(), (ours.names, theirs.names)
    assert ours.bytes < theirs.bytes


def test_a_step_multiplies_as_often_as_it_must() -> None:
    """Forward W x, B x, A (B x); backward the input's gradient through W, A and B, and the two factors' own."""
    calls, _ = counted(adapted(ROSA))
    products = sum(calls.names[name] for name in ("addmm", "mm", "bmm", "baddbmm"))
    assert products == 3 + 3 + 2
    assert calls.names["_to_copy"] == 0


def test_bfloat16_casts_each_tensor_once() -> None:
    """Forward: the input, the frozen weight and bias, the two factors. Backward: three gradients, back to float32."""
    calls, _ = counted(adapted(ROSA), bf16=True)
    assert calls.names["_to_copy"] == 5 + 3, calls.names
