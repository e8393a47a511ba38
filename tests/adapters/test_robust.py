"""RoSA's adapter: its formula, trained parameters and state, and the options it refuses."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from rosa.adapters import adapters, attach, attachment, merge
from rosa.adapters.base import dense_weight
from rosa.adapters.robust import RobustLinear, trainable_parameters
from rosa.adapters.state import rate_ratios
from rosa.config import LoraConfig, RobustConfig
from rosa.errors import AdapterError, ConfigError
from rosa.utils.seeding import generator
from tests.adapters.tiny import (
    OneLayer,
    attached,
    batch,
    build,
    give_support,
    inputs,
    logits,
    make_layer,
    perturb,
    relative_difference,
    train_steps,
)


def with_robust(layer: nn.Module, **options: Any) -> tuple[OneLayer, RobustLinear]:
    model = OneLayer(layer)
    attach(model, RobustConfig(**options), generator=generator(0, "adapter"), verbose=False)
    give_support(model)
    adapter = model.attention.layer
    assert isinstance(adapter, RobustLinear)
    return model, adapter


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_the_layer_is_the_formula(kind: str) -> None:
    layer = make_layer(kind, 12, 20)
    W, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    W = W.T if kind == "conv1d" else W
    model, adapter = with_robust(layer, rank=3, alpha=5, density=0.1)
    assert len(adapter.values) == 24
    assert not adapter.lora_B.any()
    assert not adapter.values.any()
    # Kaiming-uniform with a = sqrt(5) is uniform between -1 / sqrt(in) and 1 / sqrt(in).
    assert 0.8 / 20**0.5 < float(adapter.lora_A.detach().abs().max()) <= 1 / 20**0.5
    perturb(model, size=0.5)
    assert adapter.index is not None
    S = torch.zeros(12 * 20).scatter(0, adapter.index.long(), adapter.values.detach()).view(12, 20)
    A, B = adapter.lora_A.detach(), adapter.lora_B.detach()
    x = inputs(4, 20)
    expected = x @ (W + S).T + b + (5 / 3) * (x @ A.T @ B.T)
    assert relative_difference(model(x).detach(), expected) <= 1e-5
    assert relative_difference(merge(model)(x).detach(), expected) <= 1e-5


def test_dropout_is_on_the_low_rank_part_alone() -> None:
    model, adapter = with_robust(make_layer("linear", 12, 20), rank=3, density=0.1, dropout=0.5)
    perturb(model, size=0.5)
    x = inputs(4, 20)
    whole = model.eval()(x).detach()
    torch.manual_seed(0)
    dropped = model.train()(x).detach()
    torch.manual_seed(0)
    kept = functional.dropout(x, 0.5)
    low = adapter.scaling * kept @ adapter.lora_A.T @ adapter.lora_B.T
    without = whole - adapter.scaling * x @ adapter.lora_A.T @ adapter.lora_B.T
    assert relative_difference(dropped, (without + low).detach()) <= 1e-5


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_low_rank_only_is_lora(name: str) -> None:
    """From the same A, after the same updates. (GPT-2's fused layer has three pairs under LoRA, one here.)"""
    ours = attached(name, RobustConfig(rank=4, schedule="low_rank_only"))
    theirs = attached(name, LoraConfig(rank=4))
    assert attachment(ours).trainable_parameters == attachment(theirs).trainable_parameters  # type: ignore[union-attr]
    with torch.no_grad():
        for (_, one), (_, other) in zip(adapters(ours), adapters(theirs), strict=True):
            other.lora.lora_A.copy_(one.lora_A)
    for model in (ours, theirs):
        train_steps(model, name)
    assert relative_difference(logits(ours, name), logits(theirs, name)) <= 1e-5
    assert not any("values" in parameter or "index" in parameter for parameter in ours.state_dict())


def test_sparse_only_has_no_low_rank_part() -> None:
    model = attached("roberta", RobustConfig(density=0.05, schedule="sparse_only", rank=1000))
    names = {name.rpartition(".")[2] for _, a in adapters(model) for name in a.factors()}
    assert names == {"values"}
    present = attachment(model)
    assert present is not None
    assert present.trainable_parameters == 8 * int(0.05 * 32 * 32)


def test_a_whole_model_trains_as_with_dense_masks() -> None:
    """The sparse part alone equals the plain model trained with masked gradients by the same optimizer."""
    model = attached("roberta", RobustConfig(density=0.05, schedule="sparse_only", head="freeze"))
    plain = build("roberta").requires_grad_(False)
    masks: dict[str, Tensor] = {}
    for name, adapter in adapters(model):
        weight = plain.get_submodule(name).weight.requires_grad_()
        masks[name] = torch.zeros(weight.numel()).scatter(0, adapter.index.long(), 1).view(weight.shape)
        weight.register_hook(lambda grad, mask=masks[name]: grad * mask)
    for each in (model, plain):
        trainable = [parameter for parameter in each.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trainable, lr=1e-2)
        for step in range(4):
            optimizer.zero_grad()
            each(**batch("roberta", seed=step)).loss.backward()
            optimizer.step()
    assert relative_difference(logits(model, "roberta"), logits(plain, "roberta")) <= 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    model, adapter = with_robust(make_layer("linear", 12, 20), rank=3, density=0.1, dropout=0.5)
    perturb(model, size=0.5)
    found = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        torch.manual_seed(0)
        x = inputs(4, 20).requires_grad_()
        model.zero_grad()
        run(x).square().sum().backward()
        found.append([x.grad, *(factor.grad.clone() for factor in adapter.factors().values())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_sparse_values_have_a_learning_rate_of_their_own() -> None:
    model = attached("roberta", RobustConfig(rank=4, density=0.05, lr_sparse=0.25))
    names = {name for name, _ in model.named_parameters() if name.endswith("values")}
    assert rate_ratios(model) == dict.fromkeys(names, 0.25)
    assert len(names) == 8
    assert rate_ratios(attached("roberta", LoraConfig(rank=4))) == {}


def test_without_a_support_the_sparse_part_takes_no_part_and_has_a_gradient_of_zero() -> None:
    model = build("gpt2")
    expected = logits(model, "gpt2")
    attach(model, RobustConfig(rank=4, density=0.05), verbose=False)
    with torch.no_grad():
        for _, adapter in adapters(model):
            adapter.values.fill_(1.0)
    assert relative_difference(logits(model, "gpt2"), expected) <= 1e-5
    model(**batch("gpt2")).loss.backward()
    for _, adapter in adapters(model):
        assert adapter.values.grad is not None
        assert not adapter.values.grad.any()
        grad = torch.autograd.grad(adapter.weight.sum(), adapter.values)[0]
        assert not grad.any()
    assert relative_difference(logits(merge(model), "gpt2"), expected) <= 1e-5


# --- how many entries ------------------------------------------------------------------------------------------------


def test_a_pattern_gives_layers_another_density() -> None:
    config = RobustConfig(rank=4, density=0.05, density_pattern={"*.query": 0.1, "*.layer.1.*": 0.02})
    counts = {name: len(adapter.values) for name, adapter in adapters(attached("roberta", config))}
    for name, count in counts.items():
        density = 0.02 if ".layer.1." in name else 0.1 if name.endswith("query") else 0.05
        assert count == int(density * 1024), name


def test_a_density_that_leaves_a_layer_nothing_names_it() -> None:
    with pytest.raises(
        AdapterError, match=r"layer.0.attention.*\(32 x 32\): method.density: .* 0.0009 leaves no entry"
    ):
        attached("roberta", RobustConfig(density=0.0009))
    with pytest.raises(AdapterError, match=r"key \(32 x 32\): method.density_pattern.\*key: density 0.0001 leaves"):
        attached("roberta", RobustConfig(density_pattern={"*key": 0.0001}))
    with pytest.raises(AdapterError, match=r"method.density_pattern: 'quarry' matches none"):
        attached("roberta", RobustConfig(density_pattern={"quarry": 0.1}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0}, r"method\.density=0: expected a share"),
        ({"density": 1}, r"method\.density=1: expected a share"),
        ({"density": -0.1}, r"method\.density=-0\.1: expected a share"),
        ({"density": float("nan")}, r"method\.density=nan: expected a share"),
        ({"density_pattern": {"*": 2}}, r"method\.density_pattern\.\*=2: expected a share"),
        ({"lr_sparse": 0}, r"method\.lr_sparse=0: expected a number above 0"),
        ({"alpha": -1}, r"method\.alpha=-1: expected a number above 0"),
        ({"dropout": 1}, r"method\.dropout=1: expected"),
        ({"schedule": "later"}, r"method\.schedule='later': expected one of joint, warmup"),
        ({"score": "size"}, r"method\.score='size': expected one of gradient_squared"),
        ({"warmup_steps": 0}, r"method\.warmup_steps=0: expected a whole number of at least 1"),
        ({"collect_steps": 1.5}, r"method\.collect_steps=1\.5: expected a whole number"),
        ({"restart": True}, r"method\.restart=True: expected false: only schedule=warmup"),
        ({"support": "a", "schedule": "warmup"}, r"method\.support='a': expected none: .*=warmup chooses one"),
        ({"support": "a", "schedule": "low_rank_only"}, r"method\.support='a': expected none: .* has no sparse part"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RobustConfig(**options)


# --- parameter counts of the paper -----------------------------------------------------------------------------------

PUBLISHED = [
    # rank, density in per cent, parameters in millions (the authors' results, LLaMA2-7B)
    *((16, 0, 41.1), (12, 0.15, 41.0), (8, 0.3, 40.8), (4, 0.45, 40.6), (0, 0.6, 40.4)),
    *((32, 0, 82.3), (24, 0.3, 81.9), (16, 0.6, 81.6), (8, 0.9, 81.2), (0, 1.2, 80.9)),
    *((64, 0, 164.5), (48, 0.6, 163.8), (32, 1.2, 163.1), (16, 1.8, 162.4), (0, 2.4, 161.7)),
]


@pytest.fixture(scope="module")
def llama2_7b() -> nn.Module:
    with torch.device("meta"):
        shape = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
        return LlamaForCausalLM(shape)


@pytest.mark.parametrize(("rank", "percent", "millions"), PUBLISHED)
def test_counts_are_the_papers_where_its_embeddings_and_output_layer_are_left_out(
    rank: int, percent: float, millions: float, llama2_7b: nn.Module
) -> None:
    kind = {(True, True): "joint", (True, False): "low_rank_only", (False, True): "sparse_only"}
    schedule = kind[rank > 0, percent > 0]
    density = percent / 100 or 0.006
    ours = trainable_parameters(
        llama2_7b, RobustConfig(rank=rank or 8, density=density, schedule=schedule, targets=["*"])
    )
    # The authors' counts have two matrices more, of 32,000 x 4,096, and the vectors of the norms.
    extra = 2 * rank * (32000 + 4096) + percent / 100 * (2 * 32000 * 4096 + 65 * 4096)
    assert (ours + extra) / 1e6 == pytest.approx(millions, abs=0.06)
    assert ours == sum(
        32 * count * (rank * (out + into) + int(percent / 100 * out * into))
        for count, out, into in ((4, 4096, 4096), (2, 11008, 4096), (1, 4096, 11008))
    )


def test_moving_a_layer_does_not_make_it_ask_again_where_its_entries_stand() -> None:
    _, adapter = with_robust(make_layer("linear", 12, 20), rank=3, density=0.1)
    before = adapter.index
    adapter.double()
    adapter.index = adapter.index.clone()
    assert not adapter._remembers()
    assert adapter.support is not None
    adapter._apply(torch.clone)
    assert adapter.index is not before
    assert adapter._remembers()


def test_a_layer_that_was_moved_under_inference_mode_still_computes() -> None:
    """Tensors made there do not count their changes."""
    model, adapter = with_robust(make_layer("linear", 12, 20), rank=3, density=0.1)
    perturb(model, size=0.5)
    x = inputs(4, 20)
    expected = model(x).detach()
    with torch.inference_mode():
        adapter._apply(torch.clone)
        assert adapter.index is not None
        assert adapter.index.is_inference()
        assert torch.equal(model(x), expected)
        adapter.index.fill_(-1)
        assert adapter.support is None


def test_a_quantized_layer_without_the_library_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OneLayer(make_layer("linear", 12, 20))
    model.attention.layer.weight.quant_state = SimpleNamespace(shape=(12, 20), dtype=torch.float32)
    for module in ("bitsandbytes", "bitsandbytes.functional"):
        monkeypatch.setitem(sys.modules, module, None)
    said = r"^attention\.layer \(Linear\) has a 4-bit weight, which needs bitsandbytes: pip install .*\[quant\]"
    with pytest.raises(AdapterError, match=said):
        attach(model, RobustConfig(rank=2, density=0.1), verbose=False)
    with pytest.raises(AdapterError, match="^a 4-bit weight needs bitsandbytes"):  # as of a model loaded elsewhere
        dense_weight(model.attention.layer)
