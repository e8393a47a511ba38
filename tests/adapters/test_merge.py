"""Merging gives a plain model: its original classes, keys and Parameter objects, with the trained function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rosa.adapters import adapters, attach, attachment, merge, resample
from rosa.adapters.base import Adapter
from rosa.adapters.quantized import dense_layer
from rosa.config import LoraConfig, RosaConfig
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import (
    METHODS,
    attached,
    build,
    inputs,
    logits,
    make_layer,
    perturb,
    relative_difference,
    train_steps,
)


@pytest.mark.spread
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_merging_gives_back_classes_keys_and_outputs_and_twice_is_once(name: str, method: str) -> None:
    plain = build(name)
    model = attached(name, METHODS[method]())
    train_steps(model, name)
    if method == "rosa":
        resample(model, generator=generator(0, "resample"))
        train_steps(model, name)
    trained = logits(model, name)
    assert relative_difference(trained, logits(plain, name)) > 1e-3

    assert merge(model) is model
    assert relative_difference(logits(model, name), trained) <= 1e-5
    assert {n: type(m) for n, m in model.named_modules()} == {n: type(m) for n, m in plain.named_modules()}
    assert [(n, p.shape, p.dtype) for n, p in model.named_parameters()] == [
        (n, p.shape, p.dtype) for n, p in plain.named_parameters()
    ]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert attachment(model) is None
    assert vars(model).keys() == vars(plain).keys()
    assert not any(isinstance(module, Adapter) for module in model.modules())

    once = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    merge(model)
    assert all(torch.equal(tensor, once[key]) for key, tensor in model.state_dict().items())
    plain.load_state_dict(model.state_dict())  # strict: a fresh model takes it as it is
    assert torch.equal(logits(plain, name), logits(model, name))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_modules_and_parameters_are_the_same_objects_as_before(name: str, method: str) -> None:
    model = build(name)
    modules = {n: id(m) for n, m in model.named_modules()}
    parameters = {n: id(p) for n, p in model.named_parameters()}
    attach(model, METHODS[method](), verbose=False)
    perturb(model)
    merge(model)
    assert {n: id(m) for n, m in model.named_modules()} == modules
    assert {n: id(p) for n, p in model.named_parameters()} == parameters


def test_merging_a_plain_model_does_nothing() -> None:
    model = build("roberta")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert merge(model) is model
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


LAYERS = [("linear", True), ("linear", False), ("conv1d", True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", [RosaConfig(rank=3), LoraConfig(rank=3, alpha=7.0)], ids=["rosa", "lora"])
@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)], ids=str)
@pytest.mark.parametrize(("kind", "bias"), LAYERS)
def test_a_merged_weight_is_the_frozen_part_plus_the_product(
    kind: str, bias: bool, shape: tuple[int, int], config: Any, dtype: torch.dtype
) -> None:
    """Brute force in float64, with one rounding to the weight's own dtype."""
    layer = make_layer(kind, *shape, bias=bias).to(dtype)
    model = tiny.OneLayer(layer)
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    perturb(model, size=0.3)
    adapter = model.attention.layer
    frozen = adapter.base.weight.detach().double().clone()
    frozen = frozen.T if kind == "conv1d" else frozen
    if isinstance(config, RosaConfig) and dtype == torch.bfloat16:  # W stays whole
        frozen -= adapter.start_a.double() @ adapter.start_b.double()
    if isinstance(config, RosaConfig):
        left, right, scale = adapter.A, adapter.B, 1.0
    else:
        left, right, scale = adapter.lora.lora_B, adapter.lora.lora_A, 7.0 / 3
    expected = frozen + scale * left.detach().double() @ right.detach().double()
    plain_bias = None if layer.bias is None else layer.bias.detach().clone()
    merge(model)
    assert model.attention.layer is layer
    assert layer.weight.dtype == dtype
    merged = layer.weight.detach().T if kind == "conv1d" else layer.weight.detach()
    # Half a unit in the last place of the sum, and float32 sums of a dozen terms before that.
    rounding = torch.finfo(dtype).eps / 2 * expected.abs() + 8 * torch.finfo(torch.float32).eps * expected.abs().max()
    assert ((merged.double() - expected).abs() <= rounding).all()
    assert plain_bias is None or torch.equal(layer.bias, plain_bias)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_stay_frozen_or_trainable_as_they_were(method: str) -> None:
    model = attached("roberta", METHODS[method]())
    plain = dict(build("roberta").named_parameters())
    expected = {n: p.requires_grad for n, p in model.named_parameters() if n in plain}
    assert expected
    merge(model)
    assert {n: p.requires_grad for n, p in model.named_parameters() if n in expected} == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_methods_follow_one_another(name: str, method: str) -> None:
    """After train, merge and attach, the second method starts from the function that the first one ended with."""
    model = attached(name, RosaConfig(rank=4))
    train_steps(model, name)
    trained = logits(model, name)
    attach(merge(model), METHODS[method](), verbose=False)
    assert relative_difference(logits(model, name), trained) <= 1e-5


def test_a_saved_merged_model_loads_as_a_plain_one(tmp_path: Any) -> None:
    model = attached("gpt2", RosaConfig(rank=4))
    train_steps(model, "gpt2")
    trained = logits(model, "gpt2")
    merge(model).save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert relative_difference(logits(again.eval(), "gpt2"), trained) <= 1e-5


def test_a_whole_model_merge_is_adapter_by_adapter() -> None:
    """No layer's fold touches another: the merged weights are those of each adapter merged on its own."""

    def weights(model: nn.Module) -> dict[str, Tensor]:
        return {n: t.clone() for n, t in model.state_dict().items()}

    one, other = (attached("roberta", RosaConfig(rank=4)) for _ in range(2))
    for model in (one, other):
        perturb(model)
    expected = {f"{name}.weight": adapter.merge().weight.detach().clone() for name, adapter in adapters(one)}
    merged = weights(merge(other))
    assert len(expected) == 8
    assert all(torch.equal(merged[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("biased", [True, False])
def test_the_plain_layer_of_a_quantized_one_has_its_weight_bias_and_dtype(biased: bool) -> None:
    weight, bias = inputs(7, 10), inputs(7, seed=2) if biased else None
    layer = dense_layer(weight, bias, torch.bfloat16)
    assert (type(layer), layer.out_features, layer.in_features) == (nn.Linear, 7, 10)
    assert torch.equal(layer.weight, weight.bfloat16())
    assert layer.bias is None if bias is None else torch.equal(layer.bias, bias.bfloat16())
    assert not any(parameter.requires_grad for parameter in layer.parameters())
