"""ROSA and RoSA multiply by the base layer's weight without calling the layer, except where the call does more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from rosa.adapters import attach
from rosa.config import MethodConfig, RobustConfig, RosaConfig

OUT, IN, RANK = 4, 5, 2
METHODS: dict[str, MethodConfig] = {
    "rosa": RosaConfig(rank=RANK),
    "robust": RobustConfig(rank=RANK, density=0.2),
    "sparse": RobustConfig(schedule="sparse_only", density=0.2),
    "unchosen": RobustConfig(rank=RANK, density=0.2),
}
LINEAR = functools.partial(nn.Linear, IN, OUT)
pytestmark = pytest.mark.parametrize("method", METHODS)


def adapted(method: str, base: nn.Module) -> Any:
    """The layer under a method, with factors that change its function."""
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"attention": base})
    stream = torch.Generator().manual_seed(0)
    layer = attach(model, METHODS[method], generator=stream, verbose=False)["attention"]
    if method in ("robust", "sparse"):
        layer.choose(torch.tensor([1, 6, 7, 19]))
    with torch.no_grad():
        for factor in layer.factors().values():
            factor.normal_(generator=stream)
    return layer


def results(layer: Any, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the factors."""
    x = x.clone().requires_grad_()
    out = layer(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *layer.factors().values()])]


def hooked(calls: list[str], layer: Any) -> None:
    layer.base.register_forward_hook(lambda *_: calls.append("hook"))


def hooked_before(calls: list[str], layer: Any) -> None:
    layer.base.register_forward_pre_hook(lambda *_: calls.append("hook"))


def hooked_backward(calls: list[str], layer: Any) -> None:
    layer.base.register_full_backward_hook(lambda *_: calls.append("hook"))


def replaced(calls: list[str], layer: Any) -> None:
    plain = layer.base.forward

    def forward(x: Tensor) -> Tensor:
        calls.append("forward")
        return plain(x)

    layer.base.forward = forward


class Same(nn.Module):
    """A parametrization that changes nothing."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, weight: Tensor) -> Tensor:
        self.calls.append("weight")
        return weight.clone()


def computed(calls: list[str], layer: Any) -> None:
    parametrize.register_parametrization(layer.base, "weight", Same(calls))
    calls.clear()


@pytest.mark.parametrize("change", [hooked, hooked_before, hooked_backward, replaced, computed])
@pytest.mark.parametrize("base", [LINEAR, functools.partial(Conv1D, OUT, IN)], ids=["linear", "conv1d"])
def test_what_was_put_on_the_layer_is_called_once(
    method: str, base: Callable[[], nn.Module], change: Callable[[list[str], Any], None]
) -> None:
    layer, x = adapted(method, base()), torch.randn(3, IN)
    wanted = results(layer, x)
    calls: list[str] = []
    change(calls, layer)
    torch.testing.assert_close(results(layer, x), wanted)
    assert len(calls) == 1


def test_a_hook_of_all_modules_sees_the_layer_where_that_costs_nothing(method: str) -> None:
    """RoSA would need a further product to call it, so that a profiler would measure another step."""
    layer, x, seen = adapted(method, LINEAR()), torch.randn(3, IN), []
    wanted = results(layer, x)
    with register_module_forward_hook(lambda module, *_: seen.append(module)):
        torch.testing.assert_close(results(layer, x), wanted)
    assert seen == ([layer.base, layer] if method == "rosa" else [layer])


def test_a_hook_may_change_the_output(method: str) -> None:
    layer, x = adapted(method, LINEAR()), torch.randn(3, IN)
    plain = layer(x)
    layer.base.register_forward_hook(lambda module, given, out: out + 1)
    torch.testing.assert_close(layer(x), plain + 1)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def test_a_subclass_is_called(method: str) -> None:
    layer = adapted(method, Counting(IN, OUT))
    before = layer.base.calls
    layer(torch.randn(3, IN))
    assert layer.base.calls == before + 1


def test_a_weight_that_was_unfrozen_gets_its_gradient(method: str) -> None:
    layer, x = adapted(method, LINEAR()), torch.randn(3, IN)
    layer.base.weight.requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(layer.base.weight.grad, x.sum(0).expand(OUT, IN))


def test_an_offloaded_layer_is_fetched(method: str) -> None:
    layer, x = adapted(method, LINEAR()), torch.randn(3, IN)
    wanted = results(layer, x)
    cpu_offload(layer.base, execution_device=torch.device("cpu"))
    assert layer.base.weight.is_meta
    torch.testing.assert_close(results(layer, x), wanted)


def test_the_gradient_of_the_weight_is_collected_from_a_called_layer(method: str) -> None:
    layer, x, found = adapted(method, LINEAR()), torch.randn(3, IN), []
    if method == "rosa":
        pytest.skip("has no sparse part")
    layer.base.register_forward_hook(lambda *_: None)
    layer.collect(found.append)
    layer(x).sum().backward()
    torch.testing.assert_close(found, [x.sum(0).expand(OUT, IN)])
