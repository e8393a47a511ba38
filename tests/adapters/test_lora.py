"""LoRA against peft's implementation; where loralib differs by design, against plain matrices."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import nn

from rosa.adapters import adapters, attach, merge
from rosa.adapters.lora import LoraLinear
from rosa.config import LoraConfig
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import OneLayer, build, inputs, logits, make_layer, perturb, relative_difference, train_steps

RANK = 3
ALPHA = 12.0


def pair(name: str, targets: list[str], regex: str, head: str) -> tuple[nn.Module, nn.Module]:
    """The same model with ours and with peft's LoRA attached, with the same factors, none of which are 0."""
    ours = build(name)
    config = LoraConfig(rank=RANK, alpha=ALPHA, targets=targets, head=head)
    attach(ours, config, generator=generator(0, "adapter"), verbose=False)
    for _, adapter in adapters(ours):
        with torch.no_grad():
            factor = adapter.factors()["lora.lora_B"]
            factor.copy_(0.1 * torch.randn(factor.shape, generator=torch.Generator().manual_seed(1)))
    theirs = peft.get_peft_model(
        build(name),
        peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=regex, lora_dropout=0.0, fan_in_fan_out=name == "gpt2"
        ),
    )
    for layer, adapter in adapters(ours):
        wrapped = theirs.base_model.model.get_submodule(layer)
        with torch.no_grad():
            wrapped.lora_A["default"].weight.copy_(adapter.factors()["lora.lora_A"])
            wrapped.lora_B["default"].weight.copy_(adapter.factors()["lora.lora_B"])
    if head == "train":
        theirs.base_model.model.classifier.requires_grad_(True)
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "targets", "regex", "head"),
    [
        ("roberta", ["*attention*"], r".*attention\.(self\.(query|key|value)|output\.dense)", "freeze"),
        ("roberta", ["query", "value"], r".*attention\.self\.(query|value)", "train"),
        ("gpt2", ["attn.c_proj"], r".*attn\.c_proj", "freeze"),
    ],
    ids=["roberta", "roberta-query-value-head", "gpt2"],
)
def test_steps_equal_pefts(name: str, targets: list[str], regex: str, head: str) -> None:
    ours, theirs = pair(name, targets, regex, head)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    assert counts[0] == counts[1]
    before = logits(ours, name)
    assert relative_difference(before, logits(theirs, name)) <= 1e-6
    train_steps(ours, name, steps=5)
    train_steps(theirs, name, steps=5)
    for layer, adapter in adapters(ours):
        wrapped = theirs.base_model.model.get_submodule(layer)
        for factor in ("A", "B"):
            expected = getattr(wrapped, f"lora_{factor}")["default"].weight
            torch.testing.assert_close(adapter.factors()[f"lora.lora_{factor}"], expected, atol=1e-6, rtol=1e-6)
    if head == "train":
        for mine, their in zip(
            ours.classifier.parameters(), theirs.base_model.model.classifier.parameters(), strict=True
        ):
            torch.testing.assert_close(mine, their, atol=1e-6, rtol=1e-6)
    after = logits(ours, name)
    assert relative_difference(after, before) > 1e-2
    assert relative_difference(after, logits(theirs, name)) <= 1e-5
    assert relative_difference(logits(merge(ours), name), logits(theirs.merge_and_unload(), name)) <= 1e-5


def test_the_fused_layer_is_three_separate_adapters() -> None:
    """GPT-2's c_attn: query, key and value each get factors of their own, as separate layers would."""
    layer = make_layer("conv1d", 30, 10)
    W, b = layer.weight.detach().clone(), layer.bias.detach().clone()  # (in, out), (out,)
    model = nn.Module()
    model.attn = nn.Module()
    model.attn.c_attn = layer
    attach(model, LoraConfig(rank=RANK, alpha=ALPHA), generator=generator(0, "adapter"), verbose=False)
    adapter = model.attn.c_attn
    assert isinstance(adapter, LoraLinear)
    perturb(model, size=0.3)
    factors = {name: factor.detach().clone() for name, factor in adapter.factors().items()}
    A, B = factors["lora.lora_A"], factors["lora.lora_B"]
    assert A.shape == (3 * RANK, 10)
    assert B.shape == (30, RANK)

    separate = []
    for part in range(3):
        own = nn.Module()
        own.A = nn.Parameter(A[part * RANK : (part + 1) * RANK].clone())
        own.B = nn.Parameter(B[part * 10 : (part + 1) * 10].clone())
        separate.append(own)

    def brute_force(x: torch.Tensor) -> torch.Tensor:
        parts = [
            x @ W[:, part * 10 : (part + 1) * 10]
            + b[part * 10 : (part + 1) * 10]
            + ALPHA / RANK * (x @ own.A.T @ own.B.T)
            for part, own in enumerate(separate)
        ]
        return torch.cat(parts, dim=-1)

    x, target = inputs(2, 4, 10), inputs(2, 4, 30, seed=5)
    optimizers = [
        torch.optim.AdamW(list(adapter.factors().values()), lr=1e-2),
        torch.optim.AdamW([p for own in separate for p in own.parameters()], lr=1e-2),
    ]
    for _ in range(4):
        for forward, optimizer in zip((adapter, brute_force), optimizers, strict=True):
            optimizer.zero_grad()
            (forward(x) - target).square().mean().backward()
            optimizer.step()
    for part, own in enumerate(separate):
        now = adapter.factors()
        torch.testing.assert_close(now["lora.lora_A"][part * RANK : (part + 1) * RANK], own.A, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(now["lora.lora_B"][part * 10 : (part + 1) * 10], own.B, atol=1e-6, rtol=1e-6)
    assert relative_difference(adapter(x).detach(), brute_force(x).detach()) <= 1e-6
    assert relative_difference(merge(model).attn.c_attn(x).detach(), brute_force(x).detach()) <= 1e-6


def test_gpt2_gets_the_fused_layer_for_its_attention_only() -> None:
    model = tiny.attached("gpt2", LoraConfig(rank=RANK, targets=["*attn*", "c_fc"]))
    shapes = {name.rpartition(".")[2]: adapter.factors()["lora.lora_A"].shape[0] for name, adapter in adapters(model)}
    assert shapes == {"c_attn": 3 * RANK, "c_proj": RANK, "c_fc": RANK}


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_train_and_eval_never_touch_a_weight(name: str) -> None:
    """loralib's default folds its factors into W at eval(), and rounds W anew each time."""
    model = tiny.attached(name, LoraConfig(rank=RANK))
    perturb(model, size=0.5)
    expected = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    answer = logits(model, name)
    for _ in range(3):
        for mode in (True, False):
            model.train(mode)
            assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
            assert torch.equal(logits(model, name), answer)


@pytest.mark.parametrize("alpha", [1.0, 16.0])
def test_the_update_is_scaled_by_alpha_over_rank(alpha: float) -> None:
    layer = make_layer("linear", 7, 5)
    W = layer.weight.detach().clone()
    model = OneLayer(layer)
    attach(model, LoraConfig(rank=2, alpha=alpha), verbose=False)
    perturb(model)
    factors = model.attention.layer.factors()
    expected = W + alpha / 2 * factors["lora.lora_B"].detach() @ factors["lora.lora_A"].detach()
    torch.testing.assert_close(merge(model).attention.layer.weight.detach(), expected)


def test_factors_start_as_in_the_paper() -> None:
    """B is 0, and A drawn as PyTorch draws a linear layer: uniform within 1 / sqrt(in)."""
    model = OneLayer(make_layer("linear", 64, 400))
    attach(model, LoraConfig(rank=64), generator=generator(0, "adapter"), verbose=False)
    factors = model.attention.layer.factors()
    assert not factors["lora.lora_B"].any()
    A = factors["lora.lora_A"].detach()
    bound = 400**-0.5
    assert float(A.abs().max()) <= bound
    assert float(A.std()) == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_dropout_works_on_the_update_alone_and_only_in_training(name: str) -> None:
    model = tiny.attached(name, LoraConfig(rank=RANK, dropout=0.5)).train()
    # While B is 0 the update is 0, with or without dropout.
    assert relative_difference(logits(model, name), logits(build(name), name)) <= 1e-5
    perturb(model)
    assert not torch.equal(logits(model, name), logits(model, name))
    model.eval()
    assert torch.equal(logits(model, name), logits(model, name))
    evaluated = logits(model, name)
    assert relative_difference(logits(merge(copy.deepcopy(model)), name), evaluated) <= 1e-5


def test_the_same_seed_draws_the_same_factors_whatever_the_global_stream() -> None:
    first = tiny.attached("gpt2", LoraConfig(rank=RANK), seed=4)
    torch.randn(5)
    second = tiny.attached("gpt2", LoraConfig(rank=RANK), seed=4)
    for (_, one), (_, two) in zip(adapters(first), adapters(second), strict=True):
        assert torch.equal(one.factors()["lora.lora_A"], two.factors()["lora.lora_A"])
    own = [adapter.factors()["lora.lora_A"] for _, adapter in adapters(first)]
    assert not torch.equal(own[0], own[2])  # two layers of one shape, two draws
