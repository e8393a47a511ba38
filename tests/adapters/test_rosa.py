"""ROSA on single layers, against closed forms, and resampling in whole models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from rosa.adapters import adapters, attach, factorization, resample
from rosa.adapters.base import oriented
from rosa.adapters.resampling import move
from rosa.adapters.rosa import RosaLinear
from rosa.config import RosaConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import (
    OneLayer,
    assert_function_stays,
    attached,
    build,
    inputs,
    logits,
    make_layer,
    relative_difference,
    train_steps,
    with_rosa,
)

SAMPLINGS = ("random", "top", "bottom", "window")
LAYERS = [("linear", True), ("linear", False), ("conv1d", True)]
SHAPES = [(24, 24), (40, 16), (16, 40)]
UNIT_ROUNDOFF_BF16 = 2.0**-8
"""bfloat16 keeps 8 significant bits, so rounding to nearest changes a number by at most 2^-8 of itself."""


def effective_weight(adapter: RosaLinear) -> Tensor:
    """W_f + A B (out, in) in float64, from the raw tensors; of a narrow layer W + A B - A_0 B_0."""
    stored = adapter.base.weight.detach().double()
    frozen = stored.T if type(adapter.base).__name__ == "Conv1D" else stored
    if adapter.start_a is not None:
        frozen = frozen - adapter.start_a.double() @ adapter.start_b.double()
    return frozen + adapter.A.detach().double() @ adapter.B.detach().double()


# --- the function stays ----------------------------------------------------------------------------------------------


@pytest.mark.spread
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("rank", [1, 4, "n-1", "n"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "bias"), LAYERS)
def test_outputs_stay_at_attach_and_at_each_resample(
    kind: str, bias: bool, shape: tuple[int, int], rank: int | str, sampling: str
) -> None:
    layer = make_layer(kind, *shape, bias=bias)
    x = inputs(5, shape[1])
    with torch.no_grad():
        expected = layer(x)
    full = min(shape)
    r = {"n": full, "n-1": full - 1}.get(rank, rank)
    assert_function_stays(*with_rosa(layer, rank=r, sampling=sampling), x, expected)


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_logits_stay_at_each_resample_of_a_trained_model(name: str) -> None:
    model = attached(name, RosaConfig(rank=4))
    plain = logits(build(name), name)
    assert relative_difference(logits(model, name), plain) <= 1e-5
    train_steps(model, name)
    trained = logits(model, name)
    assert relative_difference(trained, plain) > 1e-2
    for step in range(3):
        seconds = resample(model, generator=generator(0, "resample", step))
        assert list(seconds) == [layer for layer, _ in adapters(model)]
        assert all(value > 0 for value in seconds.values())
        assert relative_difference(logits(model, name), trained) <= 1e-5


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "bias"), LAYERS)
def test_a_bfloat16_layer_is_off_by_its_roundings_and_no_more(
    kind: str, bias: bool, shape: tuple[int, int], sampling: str
) -> None:
    layer = make_layer(kind, *shape, bias=bias).bfloat16()
    W = oriented(layer, layer.weight.detach()).double().clone()
    b = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach().double()
    x = inputs(5, shape[1]).bfloat16()
    model, adapter = with_rosa(layer, rank=5, sampling=sampling)
    assert torch.equal(adapter.effective_weight(), W)
    for step in range(3):
        assert adapter.base.weight.dtype == torch.bfloat16
        assert adapter.A.dtype == adapter.B.dtype == torch.float32
        # The layer holds the whole of W, as a plain bfloat16 layer would, and what rounding took from it.
        assert torch.equal(oriented(adapter.base, adapter.base.weight.detach()), W.bfloat16())
        assert ((adapter.effective_weight() - W).abs() <= 1.01 * 2.0**-16 * W.abs()).all()
        # Besides, the frozen layer's output and the sum are rounded. The other branch is 0 where nothing was trained,
        # and rounded as a whole; a tenth covers sums in float32.
        expected = x.double() @ W.T + b
        bound = 1.1 * UNIT_ROUNDOFF_BF16 * (2 * (x.double().abs() @ W.abs().T + b.abs()) + expected.abs())
        with torch.no_grad():
            assert ((model(x).double() - expected).abs() <= bound).all()
            adapter.A += 0.1 * inputs(*adapter.A.shape, seed=step)
        rounding = UNIT_ROUNDOFF_BF16 * W.abs()
        W = adapter.effective_weight().detach()
        assert ((effective_weight(adapter) - W).abs() <= rounding).all()
        resample(model, generator=generator(0, "resample", step))


@pytest.mark.parametrize("train", ["ab", "a", "b"])
def test_both_factors_are_float32_whichever_of_them_train(train: str) -> None:
    """The factor that does not train holds a part of the pretrained weight too."""
    _, adapter = with_rosa(make_layer("linear", 12, 8).bfloat16(), rank=3, train=train)
    assert {name: factor.dtype for name, factor in adapter.factors().items()} == dict.fromkeys("AB", torch.float32)


# --- the factors are singular triplets of the weight as it is ---------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "bias"), LAYERS)
def test_factors_span_singular_vectors_of_the_merged_weight(kind: str, bias: bool, shape: tuple[int, int]) -> None:
    layer = make_layer(kind, *shape, bias=bias)
    expected_bias = None if layer.bias is None else layer.bias.detach().clone()
    _, adapter = with_rosa(layer, rank=3, sampling="top")
    for step in range(3):
        W = effective_weight(adapter)
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        A, B = adapter.A.detach().double(), adapter.B.detach().double()
        torch.testing.assert_close(A @ B, (U[:, :3] * S[:3]) @ Vh[:3], atol=1e-5, rtol=0)
        torch.testing.assert_close(B @ B.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(A.norm(dim=0), S[:3], atol=1e-5, rtol=0)
        # What is left is orthogonal to what trains, on both sides.
        frozen = W - A @ B
        assert float((frozen @ B.T).abs().max()) < 1e-5
        assert float((A.T @ frozen).abs().max()) < 1e-4
        with torch.no_grad():
            adapter.A += inputs(*adapter.A.shape, seed=step)
        resample_one(adapter, step)
    if expected_bias is not None:
        assert torch.equal(adapter.base.bias, expected_bias)


def resample_one(adapter: RosaLinear, step: int) -> None:
    move([adapter], [adapter.draw(generator(0, "resample", step))])


def test_bottom_and_top_are_the_ends_of_the_spectrum() -> None:
    layer = make_layer("linear", 20, 12)
    S = torch.linalg.svdvals(layer.weight.detach().double())
    for sampling, expected in (("top", S[:8]), ("bottom", S[-8:])):
        _, adapter = with_rosa(make_layer("linear", 20, 12), rank=8, sampling=sampling)  # more than half of them
        norms = adapter.A.detach().double().norm(dim=0).sort(descending=True).values
        torch.testing.assert_close(norms, expected, atol=1e-5, rtol=0)


def test_random_resamples_reach_every_direction() -> None:
    """Over many draws the trained directions span the whole space, and no draw repeats its predecessor's."""
    layer = make_layer("linear", 12, 12)
    _, _, Vh = torch.linalg.svd(layer.weight.detach().double())
    _, adapter = with_rosa(layer, rank=3)
    seen: set[int] = set()
    for step in range(40):
        overlap = (adapter.B.detach().double() @ Vh.T).abs()
        drawn = overlap.argmax(dim=1)
        torch.testing.assert_close(overlap.max(dim=1).values, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)
        assert len(set(drawn.tolist())) == 3
        seen |= set(drawn.tolist())
        resample_one(adapter, step)
    assert seen == set(range(12))


def test_the_generator_decides_the_subspaces_whatever_was_drawn_before() -> None:
    def subspaces(drawn_before: int) -> list[Tensor]:
        torch.manual_seed(drawn_before)
        torch.randn(drawn_before)
        model = attached("gpt2", RosaConfig(rank=4))
        stream, seen = generator(3, "resample"), []
        for _ in range(3):
            before = torch.get_rng_state()
            resample(model, generator=stream)
            assert torch.equal(torch.get_rng_state(), before)
            seen += [adapter.factors()["B"].detach().clone() for _, adapter in adapters(model)]
            torch.randn(drawn_before)
        return seen

    first, second = subspaces(3), subspaces(11)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    layers = len(first) // 3
    assert all(not torch.equal(a, b) for a, b in zip(first[:layers], first[layers:], strict=False))


def test_layers_of_a_model_draw_different_subspaces() -> None:
    model = OneLayer(make_layer("linear", 30, 30))
    model.attention.second = make_layer("linear", 30, 30)
    attach(model, RosaConfig(rank=4), generator=generator(0, "adapter"), verbose=False)
    assert not torch.allclose(model.attention.layer.B, model.attention.second.B, atol=1e-2)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "bias"), LAYERS)
def test_gradients_are_those_of_the_closed_form(kind: str, bias: bool, shape: tuple[int, int]) -> None:
    """With g = dL/dy: dL/dA = g^T (x B^T), dL/dB = (g A)^T x, dL/dx = g (W_f + A B), and no other."""
    model, adapter = with_rosa(make_layer(kind, *shape, bias=bias), rank=3)
    x = inputs(2, 7, shape[1]).requires_grad_()
    g = inputs(2, 7, shape[0], seed=2)
    model(x).backward(g)
    rows, flat = g.reshape(-1, shape[0]).double(), x.detach().reshape(-1, shape[1]).double()
    A, B = adapter.A.detach().double(), adapter.B.detach().double()
    assert adapter.A.grad is not None
    assert adapter.B.grad is not None
    assert x.grad is not None
    assert relative_difference(adapter.A.grad, rows.T @ (flat @ B.T)) < 1e-5
    assert relative_difference(adapter.B.grad, (rows @ A).T @ flat) < 1e-5
    assert relative_difference(x.grad.reshape(-1, shape[1]), rows @ effective_weight(adapter)) < 1e-5
    assert adapter.base.weight.grad is None
    assert adapter.base.bias is None or adapter.base.bias.grad is None


@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_gradients_against_finite_differences(kind: str, shape: tuple[int, int]) -> None:
    _, adapter = with_rosa(make_layer(kind, *shape), rank=2)
    adapter.double()
    x = inputs(3, shape[1]).double()

    def loss(A: Tensor, B: Tensor) -> Tensor:
        return functional_call(adapter, {"A": A, "B": B}, (x,)).square().sum()

    factors = tuple(factor.detach().clone().requires_grad_() for factor in (adapter.A, adapter.B))
    assert torch.autograd.gradcheck(loss, factors)


@pytest.mark.parametrize(("train", "moves"), [("ab", {"A", "B"}), ("a", {"A"}), ("b", {"B"})])
def test_only_the_configured_factors_train_and_both_are_resampled(train: str, moves: set[str]) -> None:
    model, adapter = with_rosa(make_layer("linear", 20, 20), rank=4, train=train)
    before = {name: factor.detach().clone() for name, factor in adapter.factors().items()}
    frozen = adapter.base.weight.detach().clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0)
    model(inputs(5, 20)).square().sum().backward()
    optimizer.step()
    assert {name for name, factor in adapter.factors().items() if not torch.equal(factor, before[name])} == moves
    assert torch.equal(adapter.base.weight, frozen)
    objects = {name: id(factor) for name, factor in adapter.factors().items()}
    before = {name: factor.detach().clone() for name, factor in adapter.factors().items()}
    resample(model, generator=generator(0, "resample"))
    assert all(not torch.allclose(factor, before[name], atol=1e-2) for name, factor in adapter.factors().items())
    assert {name: id(factor) for name, factor in adapter.factors().items()} == objects
    assert {name for name, factor in adapter.factors().items() if factor.requires_grad} == moves


# --- when a factorization fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [torch.linalg.LinAlgError, torch.OutOfMemoryError])
def test_a_failed_factorization_is_tried_once_more_on_the_cpu(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, devices = factorization.factorize_along, []

    def fails_once(weight: Tensor, indices: Tensor, **options: str) -> Any:
        devices.append(weight.device.type)
        if len(devices) == 1:
            raise failure("did not converge, or has no memory")
        return real(weight, indices, **options)

    monkeypatch.setattr(factorization, "factorize_along", fails_once)
    layer = make_layer("linear", 8, 8)
    weight = layer.weight.detach().double().clone()
    _, adapter = with_rosa(layer, rank=2)
    assert devices[1:] == ["cpu"]
    torch.testing.assert_close(effective_weight(adapter), weight, atol=1e-6, rtol=0)


def test_memory_that_is_not_enough_for_the_weights_of_a_batch_is_enough_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float64 a batch of weights takes much more than the model has."""
    model = build("roberta")
    attach(model, RosaConfig(rank=4), verbose=False)
    before = logits(model, "roberta")
    real, stack = torch.Tensor.cpu, torch.stack

    def no_stack(tensors: Any, *given: Any) -> Tensor:
        if tensors[0].dtype == torch.float64 and tensors[0].ndim == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stack(tensors, *given)

    moved = []
    monkeypatch.setattr(torch, "stack", no_stack)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(1) or real(tensor))
    assert len(resample(model, generator=generator(0, "resample"))) == 8
    assert len(moved) == 8
    assert relative_difference(logits(model, "roberta"), before) <= 1e-5


def test_a_factorization_that_fails_for_good_names_the_layer_and_undoes_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = factorization.factorize_along, []

    def fails_from_the_third_layer(weight: Tensor, indices: Tensor, **options: str) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise torch.linalg.LinAlgError("did not converge")
        return real(weight, indices, **options)

    monkeypatch.setattr(factorization, "factorize_along", fails_from_the_third_layer)
    model = build("roberta")
    with pytest.raises(AdapterError, match=r"layer\.0\.attention\.self\.value: .*did not converge"):
        attach(model, RosaConfig(rank=4), verbose=False)
    assert len(calls) == 4  # the third layer's, twice
    assert not list(adapters(model))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert relative_difference(logits(model, "roberta"), logits(build("roberta"), "roberta")) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_factors_of_a_16_bit_weight_are_those_of_its_singular_triplets(dtype):
    """As of the same weight in float32: A that stays 0 would compute the same function, and train another subspace."""
    products = []
    for computed in (torch.float32, dtype):
        _, adapter = with_rosa(make_layer("linear", 24, 16).to(dtype).to(computed), rank=4)
        products.append((adapter.A @ adapter.B).detach())
    assert relative_difference(products[1], products[0]) < 0.02
