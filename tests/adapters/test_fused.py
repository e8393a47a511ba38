"""The fused product is the sum of two linear layers, for autograd too, and is used only where nothing can notice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_module, distribute_tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rosa.adapters import attach
from rosa.adapters.fused import FactoredLinear
from rosa.config import RosaConfig
from tests.adapters.saved import saved_bytes

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


def adapted(base: nn.Module, **options: Any) -> Any:
    """The layer with ROSA."""
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"attention": base})
    config = RosaConfig(rank=RANK, **options)
    return attach(model, config, generator=torch.Generator().manual_seed(0), verbose=False)["attention"]


def general(base: nn.Module, **options: Any) -> Any:
    """The same layer, whose hook, which does nothing, keeps its product and the factors' apart."""
    layer = adapted(base, **options)
    layer.base.register_forward_hook(lambda *_: None)
    return layer


def results(layer: Any, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the factors."""
    x = x.clone().requires_grad_()
    out = layer(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, layer.A, layer.B])]


BAD = {
    "float64": torch.ones(3, IN, dtype=torch.float64),
    "int64": torch.ones(3, IN, dtype=torch.int64),
    "bool": torch.ones(3, IN, dtype=torch.bool),
    "bfloat16": torch.ones(3, IN, dtype=torch.bfloat16),
    "wider": torch.ones(3, IN + 1),
    "one number": torch.tensor(1.0),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_wrong_input_is_refused_in_the_words_of_the_layer(bad: str) -> None:
    base = nn.Linear(IN, OUT)
    said = []
    for layer in (base, adapted(copy.deepcopy(base))):
        with pytest.raises(RuntimeError) as caught:
            layer(BAD[bad])
        said.append(str(caught.value).split(",")[0])
    assert said[0] == said[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backward_pass_may_run_under_autocast(dtype: torch.dtype) -> None:
    """The forward pass without it, as of a part that a model keeps in float32."""
    layer, x = adapted(nn.Linear(IN, OUT).to(dtype)), torch.randn(3, IN, dtype=dtype)
    _, *wanted = results(layer, x)
    x.requires_grad_()
    loss = layer(x).square().sum()
    with torch.autocast("cpu", torch.float16):
        loss.backward()
    torch.testing.assert_close([x.grad, layer.A.grad, layer.B.grad], wanted)


def kept(layer: Any, x: Tensor, bf16: bool) -> int:
    """Bytes kept for the backward pass beside the parameters."""
    with saved_bytes(layer) as saved, torch.autocast("cpu", enabled=bf16):
        out = layer(x)
    assert out.requires_grad
    return sum(saved.values())


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("needs_x", [True, False])
@pytest.mark.parametrize("train", ["ab", "a", "b"])
def test_no_more_is_kept_than_autograd_keeps(train: str, needs_x: bool, bf16: bool) -> None:
    x = torch.randn(100, IN, requires_grad=needs_x)
    ours, autograds = (kept(make(nn.Linear(IN, OUT), train=train), x, bf16) for make in (adapted, general))
    rounded = 2 * RANK * IN if bf16 else 0  # B in bfloat16, for a gradient of the gradient of A
    assert ours <= autograds + rounded


def test_a_first_layer_does_not_need_its_weight_again() -> None:
    layer, x = adapted(nn.Linear(IN, OUT)), torch.randn(3, IN)
    out = layer(x)
    with torch.no_grad():
        layer.base.weight.add_(1)
    out.sum().backward()
    assert layer.A.grad is not None


def test_a_weight_that_changes_before_the_backward_pass_is_an_error() -> None:
    layer, x = adapted(nn.Linear(IN, OUT)), torch.randn(3, IN, requires_grad=True)
    out = layer(x)
    with torch.no_grad():
        layer.base.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_operations_are_counted_layer_by_layer() -> None:
    layer, x = adapted(nn.Linear(IN, OUT)), torch.randn(3, IN, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * 3 * (2 * IN * OUT + 3 * RANK * (IN + OUT))
    assert "RosaLinear.base" in counter.get_flop_counts()


def test_sparse_inputs_are_multiplied_as_before() -> None:
    layer, x = adapted(nn.Linear(IN, OUT)), torch.randn(3, IN).relu()
    torch.testing.assert_close(layer(x.to_sparse()), layer(x))


def test_sharded_tokens_stay_sharded(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        layer, x = adapted(nn.Linear(IN, OUT)), torch.randn(3, IN)
        wanted = layer(x)
        distribute_module(layer, mesh)
        out = layer(distribute_tensor(x, mesh, [Shard(0)]))
        assert out.placements == (Shard(0),)
        torch.testing.assert_close(out.full_tensor(), wanted)
    finally:
        torch.distributed.destroy_process_group()
