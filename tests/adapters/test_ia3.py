"""(IA)3 against peft's implementation; where it differs from peft, against plain matrices."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import nn

from rosa.adapters import adapters, attach, merge
from rosa.config import IA3Config
from tests.adapters import tiny
from tests.adapters.tiny import (
    OneLayer,
    attached,
    build,
    inputs,
    logits,
    make_layer,
    perturb,
    relative_difference,
    train_steps,
)

PATTERNS = {
    "roberta": (r".*attention\.self\.(key|value)", r".*layer\.\d+\.output\.dense"),
    "bert": (r".*attention\.self\.(key|value)", r".*layer\.\d+\.output\.dense"),
    "llama": (r".*self_attn\.(k_proj|v_proj)", r".*mlp\.down_proj"),
    "t5": (r".*Attention\.(k|v)", r".*DenseReluDense\.wo"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_steps_equal_pefts(name: str) -> None:
    attention, feed_forward = PATTERNS[name]
    ours = attached(name, IA3Config(head="freeze"))
    perturb(ours, size=0.2)
    theirs = peft.get_peft_model(
        build(name),
        peft.IA3Config(target_modules=f"({attention}|{feed_forward})", feedforward_modules=feed_forward),
    )
    vectors = {n: p for n, p in theirs.base_model.model.named_parameters() if p.requires_grad}
    mine = dict(adapters(ours))
    assert {n.replace(".ia3_l.default", "") for n in vectors} == set(mine)
    with torch.no_grad():
        for parameter_name, vector in vectors.items():
            scale = mine[parameter_name.replace(".ia3_l.default", "")].factors()["scale"]
            assert scale.numel() == vector.numel()
            vector.copy_(scale.reshape(vector.shape))
    before = logits(ours, name)
    assert relative_difference(before, logits(theirs, name)) <= 1e-6
    train_steps(ours, name, steps=5)
    train_steps(theirs, name, steps=5)
    for parameter_name, vector in vectors.items():
        scale = mine[parameter_name.replace(".ia3_l.default", "")].factors()["scale"]
        torch.testing.assert_close(scale, vector.flatten(), atol=1e-6, rtol=1e-6)
    after = logits(ours, name)
    assert relative_difference(after, before) > 1e-3
    assert relative_difference(after, logits(theirs, name)) <= 1e-5
    assert relative_difference(logits(merge(ours), name), logits(theirs.merge_and_unload(), name)) <= 1e-5


def test_the_fused_layer_scales_keys_and_values_and_leaves_queries() -> None:
    model = attached("gpt2", IA3Config())
    for name, adapter in adapters(model):
        if not name.endswith("c_attn"):
            continue
        W, b = adapter.base.weight.detach().clone(), adapter.base.bias.detach().clone()  # (32, 96), (96,)
        scale = adapter.factors()["scale"]
        assert scale.shape == (64,)
        with torch.no_grad():
            scale.copy_(1 + inputs(64))
        x = inputs(2, 5, 32)
        plain = x @ W + b
        expected = torch.cat([plain[..., :32], plain[..., 32:] * scale.detach()], dim=-1)
        torch.testing.assert_close(adapter(x).detach(), expected, atol=1e-5, rtol=1e-5)
        # The gradient of a scale is the sum of gradient times activation, over keys and values alone.
        g = inputs(2, 5, 96, seed=4)
        adapter(x).backward(g)
        assert scale.grad is not None
        torch.testing.assert_close(scale.grad, (g * plain)[..., 32:].sum((0, 1)), atol=1e-4, rtol=1e-4)
        merged = adapter.merge()
        torch.testing.assert_close(merged(x).detach(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(merged.weight[:, :32], W[:, :32], atol=0, rtol=0)
        torch.testing.assert_close(merged.bias[:32], b[:32], atol=0, rtol=0)


@pytest.mark.parametrize(("kind", "bias"), [("linear", True), ("linear", False), ("conv1d", True)])
def test_the_released_variant_scales_the_inputs_of_attention(kind: str, bias: bool) -> None:
    layer = make_layer(kind, 7, 5, bias=bias)
    W = layer.weight.detach().clone() if kind == "conv1d" else layer.weight.detach().T.clone()  # (in, out)
    b = layer.bias.detach().clone() if bias else 0.0
    model = OneLayer(layer)
    attach(model, IA3Config(variant="attention_inputs"), verbose=False)
    scale = model.attention.layer.factors()["scale"]
    assert scale.shape == (5,)
    with torch.no_grad():
        scale.copy_(1 + inputs(5, seed=3))
    x = inputs(2, 3, 5)
    expected = (x * scale.detach()) @ W + b
    torch.testing.assert_close(model(x).detach(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merge(model)(x).detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_the_released_variant_takes_every_attention_layer(name: str) -> None:
    model = attached(name, IA3Config(variant="attention_inputs"))
    linear = {n for n, m in build(name).named_modules() if hasattr(m, "weight") and ("attention" in n or "attn" in n)}
    assert {n for n, _ in adapters(model)} == {n for n in linear if "LayerNorm" not in n}


@pytest.mark.parametrize("variant", ["paper", "attention_inputs"])
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_activations_are_scaled_and_no_weight_while_training(name: str, variant: str) -> None:
    model = attached(name, IA3Config(variant=variant))
    scales = [adapter.factors()["scale"] for _, adapter in adapters(model)]
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if n not in trained}
    train_steps(model, name, steps=2)
    assert all(not torch.equal(scale, torch.ones_like(scale)) for scale in scales)
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n not in trained)


def test_scaled_outputs_include_the_bias() -> None:
    """The scaled activation is W x + b, so merging scales a key's bias too."""
    attention = nn.ModuleDict({"k_proj": make_layer("linear", 4, 3)})
    feed_forward = nn.ModuleDict({"down_proj": make_layer("linear", 3, 4)})
    model = nn.ModuleDict({"self_attn": attention, "mlp": feed_forward})
    layer = model["self_attn"]["k_proj"]
    W, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    attach(model, IA3Config(), verbose=False)
    scale = torch.tensor([2.0, -1.0, 0.0, 0.5])
    with torch.no_grad():
        model["self_attn"]["k_proj"].factors()["scale"].copy_(scale)
    x = inputs(6, 3)
    torch.testing.assert_close(model["self_attn"]["k_proj"](x).detach(), scale * (x @ W.T + b))
    merge(model)
    torch.testing.assert_close(layer.weight.detach(), scale[:, None] * W)
    torch.testing.assert_close(layer.bias.detach(), scale * b)
