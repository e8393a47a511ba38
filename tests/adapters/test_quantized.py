"""RoSA on layers that bitsandbytes has quantized to 4 bits, on the CPU; skipped without it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from rosa.adapters import attach, attachment, changing_state, load_changing_state, merge, support
from rosa.adapters.collect import Collector
from rosa.config import LoraConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters.tiny import OneLayer, give_support, inputs, perturb, relative_difference

bitsandbytes = pytest.importorskip("bitsandbytes")

OUT, IN = 32, 64
CONFIG = RobustConfig(rank=4, density=0.05)


def quantized() -> OneLayer:
    torch.manual_seed(0)
    plain = nn.Linear(IN, OUT)
    layer = bitsandbytes.nn.Linear4bit(IN, OUT, compute_dtype=torch.float32, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    return OneLayer(layer.to("cpu"))


def values(layer: Any) -> torch.Tensor:
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def with_robust() -> OneLayer:
    model = quantized()
    attach(model, CONFIG, generator=generator(0, "adapter"), verbose=False)
    return model


def test_both_parts_train_on_a_quantized_weight() -> None:
    model = quantized()
    x = inputs(5, IN)
    expected = model(x).detach()
    W, b = values(model.attention.layer), model.attention.layer.bias.detach().clone()
    attach(model, CONFIG, generator=generator(0, "adapter"), verbose=False)
    give_support(model)
    present = attachment(model)
    assert present is not None
    assert present.layers[0].shape == (OUT, IN)
    assert present.trainable_parameters == 4 * (OUT + IN) + int(0.05 * OUT * IN)
    assert relative_difference(model(x).detach(), expected) <= 1e-5
    perturb(model, size=0.2)
    adapter: Any = model.attention.layer
    whole = (W + adapter.delta_weight(lambda tensor: tensor)).detach().requires_grad_()
    out = nn.functional.linear(x, whole, b)
    assert relative_difference(model(x).detach(), out.detach()) <= 1e-5
    out.square().sum().backward()
    model(x).square().sum().backward()
    assert whole.grad is not None
    assert relative_difference(adapter.values.grad, whole.grad.flatten()[adapter.index.long()]) <= 1e-5


def test_the_support_is_that_of_the_dense_weight() -> None:
    model = with_robust()
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    model(inputs(5, IN)).square().sum().backward()
    collector.end_update()
    plain = quantized()
    W = values(plain.attention.layer).requires_grad_()
    nn.functional.linear(inputs(5, IN), W, plain.attention.layer.bias).square().sum().backward()
    assert W.grad is not None
    torch.testing.assert_close(collector.scores["attention.layer"], W.grad.square(), rtol=1e-4, atol=1e-6)


def test_merging_is_refused_and_dequantized_on_request() -> None:
    model = with_robust()
    give_support(model)
    perturb(model, size=0.2)
    expected = model(inputs(5, IN)).detach()
    with pytest.raises(AdapterError, match=r"attention\.layer: its weight is quantized to 4 bits.*dequantize=True"):
        merge(model)
    assert relative_difference(model(inputs(5, IN)).detach(), expected) == 0
    merge(model, dequantize=True)
    assert type(model.attention.layer) is nn.Linear
    assert relative_difference(model(inputs(5, IN)).detach(), expected) <= 1e-5


def test_a_checkpoint_and_a_copy_hold_what_trains() -> None:
    model = with_robust()
    give_support(model)
    perturb(model)
    saved = {name: tensor.clone() for name, tensor in changing_state(model).items()}
    assert {name.rpartition(".")[2] for name in saved} == {"lora_A", "lora_B", "values", "index"}
    other = with_robust()
    load_changing_state(other, saved, "checkpoint")
    for each in (other, copy.deepcopy(model)):
        assert torch.equal(each(inputs(5, IN)), model(inputs(5, IN)))


@pytest.mark.parametrize("config", [RosaConfig(rank=4), LoraConfig(rank=4)])
def test_other_methods_still_refuse_quantized_weights(config: Any) -> None:
    with pytest.raises(AdapterError, match="looks quantized"):
        attach(quantized(), config, verbose=False)
