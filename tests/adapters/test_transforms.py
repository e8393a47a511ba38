"""Every way in which PyTorch differentiates or records a layer gives what the plain layer with its weight gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.gradcheck import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.nn import functional
from torch.nn.modules import module as modules

from rosa.adapters import attach
from rosa.adapters.base import Adapter
from rosa.adapters.fused import FactoredLinear, can_fuse
from rosa.config import IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from tests.adapters.tiny import OneLayer, give_support, inputs, make_layer, perturb

OUT, IN, ROWS = 5, 6, 3
METHODS: dict[str, Callable[[], MethodConfig]] = {
    "rosa": lambda: RosaConfig(rank=2),
    "rosa a": lambda: RosaConfig(rank=2, train="a"),
    "lora": lambda: LoraConfig(rank=2),
    "ia3": lambda: IA3Config(variant="attention_inputs"),
    "robust": lambda: RobustConfig(rank=2, density=0.2),
    "robust, no support yet": lambda: RobustConfig(rank=2, density=0.2),
    "robust, sparse": lambda: RobustConfig(schedule="sparse_only", density=0.2),
}
every = pytest.mark.parametrize("method", METHODS)
called = pytest.mark.parametrize("hooked", [False, True])
"""With a hook on the wrapped layer, which is then called and not read."""


def adapted(method: str, hooked: bool = False, dtype: torch.dtype = torch.float64) -> Adapter:
    torch.manual_seed(0)
    model = OneLayer(make_layer("linear", OUT, IN)).to(dtype)
    attach(model, METHODS[method](), verbose=False)
    if not method.endswith("yet"):
        give_support(model)
    perturb(model)
    layer = model.attention.layer
    assert isinstance(layer, Adapter)
    if hooked:
        layer.base.register_forward_hook(lambda *_: None)
    return layer


def trained(layer: Adapter) -> dict[str, Tensor]:
    return {name: factor for name, factor in layer.factors().items() if factor.requires_grad}


def plain(layer: Adapter, x: Tensor) -> Tensor:
    """The output from the layer's weight and bias."""
    return functional.linear(x, layer.effective_weight(), layer.effective_bias())


def x_of(dtype: torch.dtype = torch.float64) -> Tensor:
    return inputs(ROWS, IN).to(dtype)


@every
@called
def test_gradients_of_single_examples_are_those_of_a_loop(method: str, hooked: bool) -> None:
    layer, x = adapted(method, hooked), x_of()

    def loss(changed: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(layer, changed, row).square().sum()

    factors = trained(layer)
    found = vmap(grad(loss), (None, 0))({name: factor.detach() for name, factor in factors.items()}, x)
    for i, row in enumerate(x):
        wanted = torch.autograd.grad(plain(layer, row).square().sum(), list(factors.values()))
        torch.testing.assert_close([found[name][i] for name in factors], list(wanted))


@every
@called
def test_forward_mode_and_jacobians_are_those_of_the_weight(method: str, hooked: bool) -> None:
    layer, x, along = adapted(method, hooked), x_of(), inputs(ROWS, IN, seed=2).double()
    weight = layer.effective_weight().detach()
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))).tangent
    torch.testing.assert_close(dual, along @ weight.T)
    torch.testing.assert_close(jvp(layer, (x,), (along,))[1], along @ weight.T)
    for jacobian in (jacfwd, jacrev):
        torch.testing.assert_close(jacobian(layer)(x[0]), weight)


@every
@called
def test_gradients_of_gradients_are_those_of_finite_differences(method: str, hooked: bool) -> None:
    layer, x = adapted(method, hooked), x_of().requires_grad_()
    names = list(trained(layer))

    def output(x: Tensor, *factors: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, factors, strict=True)), x).tanh()

    given = (x, *(factor.detach().clone().requires_grad_() for factor in trained(layer).values()))
    assert gradcheck(output, given)
    assert gradgradcheck(output, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every
def test_a_penalty_on_gradients_changes_no_dtype_and_collects_them(method: str, dtype: torch.dtype) -> None:
    layer, x = adapted(method, dtype=dtype), x_of(dtype).requires_grad_()
    collected: list[Tensor] = []
    if method.startswith("robust"):
        layer.collect(collected.append)
    (first,) = torch.autograd.grad(layer(x).float().square().sum(), x, create_graph=True)
    assert first.dtype == dtype
    first.float().square().sum().backward()
    for name, factor in trained(layer).items():
        assert factor.grad is not None, name
        assert factor.grad.dtype == factor.dtype
    if collected:
        out = plain(layer, x.detach().double())
        wanted = 2 * out.detach().T @ x.detach().double()
        torch.testing.assert_close(collected[0].double(), wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))


@every
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_layer_can_be_saved(method: str, tmp_path: Path) -> None:
    layer, x = adapted(method, dtype=torch.float32), x_of(torch.float32)
    torch.jit.save(torch.jit.trace(layer, x), tmp_path / "layer.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "layer.pt")(x), layer(x))


@pytest.mark.parametrize(
    ("place", "name"),
    [(forward_ad, "_current_level"), (torch._C, "_are_functorch_transforms_active"), (modules, "_has_any_global_hook")],
)
def test_without_a_private_name_of_pytorch_nothing_is_fused(
    place: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be renamed; the layers then multiply as they would with a hook."""
    layer, x = adapted("rosa"), x_of()
    assert can_fuse(x, layer.base, *trained(layer).values())  # type: ignore[arg-type]
    wanted = layer(x)
    with monkeypatch.context() as patch:
        patch.delattr(place, name)
        patch.setattr(FactoredLinear, "apply", None)
        assert not can_fuse(x, layer.base, *trained(layer).values())  # type: ignore[arg-type]
        if place is not modules:  # which calls it for each module
            torch.testing.assert_close(layer(x), wanted)
