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
from rosa.adapters.base import SupportedAdapter
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from tests.adapters.saved import saved_bytes

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
    layer = attach(model, config, generator=torch.Generator().manual_seed(0), verbose=False)["attention"]
    if isinstance(layer, SupportedAdapter) and layer.index is not None:
        layer.choose(torch.arange(len(layer.index)) * (OUT * IN // len(layer.index)))
    return layer


def counted(layer: nn.Module, bf16: bool = False) -> tuple[Calls, int]:
    """The operators of a forward and backward pass, and the bytes kept in between beside the parameters."""
    x = torch.randn(ROWS, IN, requires_grad=True)
    with Calls() as calls, saved_bytes(layer) as kept:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = layer(x)
        held = sum(kept.values())
        out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters() if parameter.requires_grad)
    return calls, held


ROSA, LORA = RosaConfig(rank=RANK), LoraConfig(rank=RANK)
METHODS: dict[str, MethodConfig] = {
    "rosa": ROSA,
    "lora": LORA,
    "robust": RobustConfig(rank=RANK, density=0.02),
    "sparse": RobustConfig(schedule="sparse_only", density=0.02),
    "ia3": IA3Config(variant="attention_inputs"),
    "full": FullConfig(),
}
MOST: dict[tuple[str, bool], tuple[int, int, int]] = {
    ("rosa", False): (11, 13000, 2720),
    ("lora", False): (14, 19400, 2720),
    ("robust", False): (42, 97760, 2720),
    ("sparse", False): (33, 87680, 2560),
    ("ia3", False): (8, 12424, 2560),
    ("full", False): (6, 16968, 2560),
    ("rosa", True): (19, 19268, 8400),
    ("lora", True): (22, 22468, 8400),
    ("robust", True): (73, 106868, 2256),
    ("sparse", True): (60, 99140, 1280),
    ("ia3", True): (12, 20260, 8704),
    ("full", True): (12, 31044, 7424),
}
"""By method and whether in bfloat16: the most operator calls, bytes of their results, and bytes kept for the backward
pass. A change that makes a step dearer has to raise a number here; one that makes it cheaper lowers it."""
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "_unique2")
"""Operators for whose result the host waits on a GPU."""


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_costs_no_more_than_it_did(method: str, bf16: bool) -> None:
    calls, held = counted(adapted(METHODS[method]), bf16)
    found = (calls.names.total(), calls.bytes, held)
    assert all(now <= most for now, most in zip(found, MOST[method, bf16], strict=True)), (found, calls.names)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_the_host_waits_for_nothing_in_a_step(method: str, bf16: bool) -> None:
    layer = adapted(METHODS[method])
    counted(layer, bf16)  # what is remembered after the first step
    calls, _ = counted(layer, bf16)
    assert [name for name in WAITS if calls.names[name]] == []


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
    products = sum(calls.names[name] for name in ("addmm", "addmm_", "mm", "bmm", "baddbmm"))
    assert products == 3 + 3 + 2
    assert calls.names["_to_copy"] == 0


def test_bfloat16_casts_each_tensor_once() -> None:
    """Forward: the input, the frozen weight and bias, the two factors. Backward: three gradients, back to float32."""
    calls, _ = counted(adapted(ROSA), bf16=True)
    assert calls.names["_to_copy"] == 5 + 3, calls.names
