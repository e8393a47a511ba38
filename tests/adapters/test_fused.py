"""The fused product is the sum of two linear layers, for autograd too, and is used only where nothing can notice."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from rosa.adapters import attach
from rosa.adapters.fused import FactoredLinear
from rosa.config import RosaConfig

OUT, IN, RANK = 4, 5, 2


def random(*shape: int, grad: bool = True) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=grad)


@pytest.mark.parametrize("shape", [(IN,), (3, IN), (2, 3, IN), (0, IN)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_it_is_the_sum_of_two_products(shape: tuple[int, ...], bias: bool, transposed: bool) -> None:
    x, A, B = random(*shape), random(OUT, RANK), random(RANK, IN)
    weight = random(IN, OUT, grad=False).T if transposed else random(OUT, IN, grad=False)
    b = random(OUT) if bias else None
    out = FactoredLinear.apply(x, weight, b, A, B)
    torch.testing.assert_close(out, functional.linear(functional.linear(x, B), A) + functional.linear(x, weight, b))
    assert not out._is_view()


@pytest.mark.parametrize("wanted", ["x", "b", "A", "B", "xA", "xB", "AB", "xbAB"])
def test_its_gradients_and_their_gradients_are_those_of_finite_differences(wanted: str) -> None:
    weight = random(OUT, IN, grad=False)
    x, b, A, B = (
        random(*shape, grad=name in wanted)
        for name, shape in {"x": (2, 3, IN), "b": (OUT,), "A": (OUT, RANK), "B": (RANK, IN)}.items()
    )
    assert torch.autograd.gradcheck(FactoredLinear.apply, (x, weight, b, A, B))
    assert torch.autograd.gradgradcheck(FactoredLinear.apply, (x, weight, b, A, B))


def adapted(base: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({"attention": base})
    layer: Any = attach(model, RosaConfig(rank=RANK), generator=torch.Generator().manual_seed(0), verbose=False)
    return layer["attention"]


def results(layer: Any, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the factors."""
    x = x.clone().requires_grad_()
    out = layer(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, layer.A, layer.B])]


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


@pytest.mark.parametrize("change", [hooked, hooked_before, hooked_backward, replaced])
@pytest.mark.parametrize("base", [functools.partial(nn.Linear, IN, OUT), functools.partial(Conv1D, OUT, IN)])
def test_a_layer_whose_call_does_more_is_called(
    change: Callable[[list[str], Any], None], base: Callable[[], nn.Module]
) -> None:
    layer, x = adapted(base()), torch.randn(3, IN)
    fused = results(layer, x)
    calls: list[str] = []
    change(calls, layer)
    for found, wanted in zip(results(layer, x), fused, strict=True):
        torch.testing.assert_close(found, wanted)
    assert len(calls) == 1


class Counting(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def test_a_subclass_is_called() -> None:
    layer: Any = adapted(Counting(IN, OUT))
    before = layer.base.calls
    layer(torch.randn(3, IN))
    assert layer.base.calls == before + 1


def test_a_weight_that_was_unfrozen_gets_its_gradient() -> None:
    layer: Any = adapted(nn.Linear(IN, OUT))
    layer.base.weight.requires_grad_()
    x = torch.randn(3, IN)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.base.weight.grad, x.sum(0).expand(OUT, IN))


def test_gradients_of_single_examples_are_those_of_a_loop() -> None:
    layer: Any = adapted(nn.Linear(IN, OUT))
    factors, x = {"A": layer.A.detach(), "B": layer.B.detach()}, torch.randn(3, IN)

    def loss(changed: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(layer, changed, row).square().sum()

    found = vmap(grad(loss), (None, 0))(factors, x)
    for i, row in enumerate(x):
        _, _, A, B = results(layer, row)
        torch.testing.assert_close((found["A"][i], found["B"][i]), (A, B))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bfloat16])
def test_an_input_of_another_dtype_is_refused_as_by_the_layer(dtype: torch.dtype) -> None:
    base, x = nn.Linear(IN, OUT), torch.ones(3, IN, dtype=dtype)
    for layer in (base, adapted(copy.deepcopy(base))):
        with pytest.raises(RuntimeError, match="same dtype"):
            layer(x)
