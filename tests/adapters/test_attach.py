"""Attaching any method to any model: trainable names, dtypes and messages; nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rosa
from rosa.adapters import adapters, attach, attachment, changing_state, load_changing_state, merge, resample
from rosa.adapters.rosa import RosaLinear
from rosa.adapters.state import frozen_hash, undecayed_names
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError, ConfigError
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import METHODS, attached, build, logits, perturb, relative_difference, train_steps

# --- exactly these parameters train ----------------------------------------------------------------------------------

ENCODER_ATTENTION = [
    f"encoder.layer.{i}.attention.{layer}"
    for i in range(2)
    for layer in ("self.query", "self.key", "self.value", "output.dense")
]
ATTENTION = {
    "roberta": [f"roberta.{name}" for name in ENCODER_ATTENTION],
    "bert": [f"bert.{name}" for name in ENCODER_ATTENTION],
    "gpt2": [f"transformer.h.{i}.attn.{layer}" for i in range(2) for layer in ("c_attn", "c_proj")],
    "llama": [f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkvo"],
    "t5": [
        f"{stack}.block.{i}.layer.{j}.{attention}.{p}"
        for stack, blocks in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"]))
        for i in range(2)
        for j, attention in enumerate(blocks)
        for p in "qkvo"
    ],
}
ENCODER_SCALED = [
    f"encoder.layer.{i}.{layer}"
    for i in range(2)
    for layer in ("attention.self.key", "attention.self.value", "output.dense")
]
SCALED = {
    "roberta": [f"roberta.{name}" for name in ENCODER_SCALED],
    "bert": [f"bert.{name}" for name in ENCODER_SCALED],
    "gpt2": [f"transformer.h.{i}.{layer}" for i in range(2) for layer in ("attn.c_attn", "mlp.c_proj")],
    "llama": [
        f"model.layers.{i}.{layer}"
        for i in range(2)
        for layer in ("self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
    ],
    "t5": [name for name in ATTENTION["t5"] if name.endswith((".k", ".v"))]
    + [f"encoder.block.{i}.layer.1.DenseReluDense.wo" for i in range(2)]
    + [f"decoder.block.{i}.layer.2.DenseReluDense.wo" for i in range(2)],
}
HEAD = {
    "roberta": [f"classifier.{layer}.{tensor}" for layer in ("dense", "out_proj") for tensor in ("weight", "bias")],
    "bert": ["classifier.weight", "classifier.bias"],
    "gpt2": [],  # tied to the input embedding
    "llama": [],  # an output layer of its own, and pretrained
    "t5": [],  # tied, too
}
HEAD_SIZE = {"roberta": 32 * 32 + 32 + 3 * 32 + 3, "bert": 3 * 32 + 3, "gpt2": 0, "llama": 0, "t5": 0}


def expected_factors(model: str, method: str, train: str) -> set[str]:
    if method == "rosa":
        return {f"{layer}.{factor.upper()}" for layer in ATTENTION[model] for factor in train}
    if method == "lora":
        return {f"{layer}.lora.lora_{factor}" for layer in ATTENTION[model] for factor in "AB"}
    if method == "robust":
        return {f"{layer}.{factor}" for layer in ATTENTION[model] for factor in ("lora_A", "lora_B", "values")}
    return {f"{layer}.scale" for layer in (SCALED if method == "ia3" else ATTENTION)[model]}


@pytest.mark.spread
@pytest.mark.parametrize("head", ["train", "freeze"])
@pytest.mark.parametrize("method", ["rosa-ab", "rosa-a", "rosa-b", "lora", "robust", "ia3", "ia3-inputs"])
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_exactly_the_expected_parameters_train(name: str, method: str, head: str) -> None:
    kind, _, train = method.partition("-") if method.startswith("rosa") else (method, "", "")
    config: MethodConfig = {
        "rosa": lambda: RosaConfig(rank=4, train=train, head=head),
        "lora": lambda: LoraConfig(rank=4, head=head),
        "robust": lambda: RobustConfig(rank=4, density=0.05, head=head),
        "ia3": lambda: IA3Config(head=head),
        "ia3-inputs": lambda: IA3Config(variant="attention_inputs", head=head),
    }[kind]()
    model = build(name)
    total = sum(parameter.numel() for parameter in model.parameters())
    attach(model, config, verbose=False)
    tiny.give_support(model)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    factors = expected_factors(name, kind, train)
    assert set(trainable) == factors | set(HEAD[name] if head == "train" else [])

    # And these are the ones that a training step moves, no other.
    perturb(model)  # LoRA's A has no gradient while B is 0
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train_steps(model, name, steps=1)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(trainable)

    present = attachment(model)
    assert present is not None
    assert present.trainable_parameters == sum(trainable[n].numel() for n in factors)
    assert present.head_parameters == (HEAD_SIZE[name] if head == "train" else 0)
    assert present.total_parameters == total
    assert sum(layer.trainable for layer in present.layers) == present.trainable_parameters


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_full_fine_tuning_trains_everything(name: str) -> None:
    model = build(name)
    model.requires_grad_(False)
    attach(model, FullConfig(), verbose=False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    present = attachment(model)
    assert present is not None
    assert present.head_parameters == HEAD_SIZE[name]
    assert present.trainable_parameters + present.head_parameters == present.total_parameters
    assert present.total_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_tied_embeddings_stay_tied_and_unadapted(method: str) -> None:
    model = attached("gpt2", METHODS[method]())
    assert model.lm_head.weight is model.transformer.wte.weight
    assert type(model.lm_head) is nn.Linear
    if method != "full":
        assert not model.lm_head.weight.requires_grad
    merge(model)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_adapter_can_be_asked_to_take_every_linear_layer_but_the_head() -> None:
    model = attached("roberta", RosaConfig(rank=2, targets=["*"]))
    wrapped = {name for name, _ in adapters(model)}
    linear = {name for name, module in build("roberta").named_modules() if isinstance(module, nn.Linear)}
    assert wrapped == {name for name in linear if not name.startswith("classifier")}


@pytest.mark.parametrize("pattern", ["query", "self.query", "attention.self.query", "*.layer.?.*query", "QUERY"])
def test_a_pattern_matches_a_dotted_suffix_without_case(pattern: str) -> None:
    model = attached("bert", RosaConfig(rank=2, targets=[pattern]))
    assert {name for name, _ in adapters(model)} == {n for n in ATTENTION["bert"] if n.endswith("query")}


# --- nothing else changes --------------------------------------------------------------------------------------------


@pytest.mark.spread
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_attaching_leaves_the_function(name: str, method: str) -> None:
    plain = logits(build(name), name)
    assert relative_difference(logits(attached(name, METHODS[method]()), name), plain) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_attaching_and_merging_keep_the_training_mode(method: str, training: bool) -> None:
    model = build("roberta").train(training)
    attach(model, METHODS[method](), verbose=False)
    assert all(module.training == training for module in model.modules())
    assert all(module.training == training for module in merge(model).modules())


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3", "ia3-inputs"])
@pytest.mark.parametrize("name", ["roberta", "gpt2", "t5"])
def test_trainable_parameters_are_float32_on_a_bfloat16_backbone(name: str, method: str) -> None:
    model = build(name).bfloat16()
    attach(model, METHODS[method](), verbose=False)
    for parameter_name, parameter in model.named_parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == expected, parameter_name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_steps(model, name, steps=1)
    assert torch.isfinite(logits_under_autocast(model, name)).all()


def logits_under_autocast(model: nn.Module, name: str) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return logits(model, name)


@pytest.mark.spread
@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3", "ia3-inputs"])
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_bfloat16_backbone_is_within_its_own_rounding(name: str, method: str) -> None:
    """Within twice the distance of the plain bfloat16 model from the float32 model."""
    reference = logits(build(name), name)
    plain = logits_under_autocast(build(name).bfloat16(), name)
    model = build(name).bfloat16()
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    own_rounding = relative_difference(plain, reference)
    assert 0 < relative_difference(logits_under_autocast(model, name), reference) <= 2 * own_rounding


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3", "ia3-inputs"])
def test_bfloat16_layers_need_no_autocast(method: str) -> None:
    """GPT-2 has no head of its own here, so that nothing but the factors is float32."""
    model = build("gpt2").bfloat16()
    own_rounding = relative_difference(logits(model, "gpt2"), logits(build("gpt2"), "gpt2"))
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    actual = logits(model, "gpt2")
    assert actual.dtype == torch.bfloat16
    assert relative_difference(actual, logits(build("gpt2"), "gpt2")) <= 2 * own_rounding


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_works_under_autocast(name: str, method: str) -> None:
    """A float32 model under autocast: a step runs, and its outputs are float32's within bfloat16's rounding."""
    model = attached(name, METHODS[method]())
    exact = logits(model, name)
    rounding = relative_difference(logits_under_autocast(build(name), name), logits(build(name), name))
    assert 0 < relative_difference(logits_under_autocast(model, name), exact) <= 2 * rounding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**tiny.batch(name)).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.dtype == torch.float32
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3-inputs"])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(10,), (3, 10), (2, 3, 10), (2, 2, 3, 10)], ids=str)
def test_inputs_of_any_number_of_dimensions(shape: tuple[int, ...], autocast: bool, kind: str, method: str) -> None:
    layer = tiny.make_layer(kind, 6, 10)
    weight = layer.weight.detach().T if kind == "conv1d" else layer.weight.detach()
    x = tiny.inputs(*shape)
    expected = (weight.double() @ x.double().unsqueeze(-1)).squeeze(-1) + layer.bias.detach().double()
    model = tiny.OneLayer(layer)
    attach(model, METHODS[method](), verbose=False)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = model(x)
    assert actual.shape == (*shape[:-1], 6)
    assert actual.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert relative_difference(actual.detach(), expected) < (2e-2 if autocast else 1e-6)


class WithoutAutocast(nn.Linear):
    """A layer that computes in its weight's precision whatever autocast is on."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return nn.functional.linear(x, self.weight, self.bias)


@pytest.mark.parametrize("config", [RosaConfig(rank=2), RobustConfig(rank=2, schedule="low_rank_only")])
def test_a_layer_that_turns_autocast_off_is_given_its_own_input(config: RosaConfig | RobustConfig) -> None:
    model = tiny.OneLayer(WithoutAutocast(10, 6))
    x = tiny.inputs(4, 10)
    expected = model(x).detach()
    attach(model, config, verbose=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_difference(model(x).detach().float(), expected) < 2e-2


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3-inputs"])
def test_inputs_that_are_no_real_floats_are_refused_as_by_the_plain_layer(
    method: str, dtype: torch.dtype, autocast: bool
) -> None:
    """Not computed in whole numbers, to which weights below 1 are rounded as 0, nor without the imaginary part."""
    model = tiny.OneLayer(tiny.make_layer("linear", 6, 10))
    attach(model, METHODS[method](), verbose=False)
    tiny.give_support(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast), pytest.raises(RuntimeError):
        model(torch.ones(4, 10, dtype=dtype))


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3-inputs"])
def test_an_adapted_model_computes_shapes_on_the_meta_device(method: str) -> None:
    model = tiny.OneLayer(tiny.make_layer("linear", 6, 10))
    attach(model, METHODS[method](), verbose=False)
    tiny.give_support(model)
    out = model.to("meta")(torch.ones(4, 10, device="meta"))
    assert out.shape == (4, 6)
    out.sum().backward()


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3"])
def test_a_layer_answers_for_its_weight_and_bias(method: str) -> None:
    """Model code that reads weight and bias instead of calling the layer gets the effective ones, with gradients."""
    model = attached("gpt2", METHODS[method]())
    perturb(model, size=0.3)
    for _, adapter in adapters(model):
        x = tiny.inputs(5, adapter.base.weight.shape[0])  # Conv1D: (in, out)
        called = adapter(x)
        read = x @ adapter.weight + adapter.bias
        assert relative_difference(read.detach(), called.detach()) <= 1e-5
        assert adapter.weight.shape == adapter.base.weight.shape
        factors = list(adapter.factors().values())
        for one, other in zip(
            torch.autograd.grad(read.square().sum(), factors),
            torch.autograd.grad(called.square().sum(), factors),
            strict=True,
        ):
            assert relative_difference(one, other) <= 1e-4


@pytest.mark.parametrize("method", ["rosa", "lora", "robust"])
def test_the_generator_alone_decides_the_factors(method: str) -> None:
    def factors(seed: int, drawn_before: int) -> dict[str, Tensor]:
        model = build("gpt2")  # the first one seeds PyTorch's global generator
        torch.manual_seed(drawn_before)
        torch.randn(drawn_before)
        before = torch.get_rng_state()
        attach(model, METHODS[method](), generator=generator(seed, "adapter"), verbose=False)
        assert torch.equal(torch.get_rng_state(), before)
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    first, second, other = factors(0, 3), factors(0, 5), factors(1, 3)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # LoRA's B and sparse values are 0 whatever is drawn.
    assert all(not torch.equal(first[name], other[name]) for name in first if not name.endswith(("lora_B", "values")))


def test_only_what_holds_pretrained_weight_is_spared_weight_decay() -> None:
    rosa_model = attached("gpt2", RosaConfig(rank=4))
    assert undecayed_names(rosa_model) == {f"{layer}.{factor}" for layer in ATTENTION["gpt2"] for factor in "AB"}
    for method in ("lora", "robust", "full"):
        assert undecayed_names(attached("gpt2", METHODS[method]())) == set()
    for method in ("ia3", "ia3-inputs"):  # its vectors start at 1, and decay pulls towards 0
        model = attached("gpt2", METHODS[method]())
        assert undecayed_names(model) == {f"{name}.scale" for name, _ in adapters(model)}


# --- what is printed -------------------------------------------------------------------------------------------------


def test_attach_prints_what_was_adapted(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("gpt2")
    attach(model, RosaConfig(rank=4))
    printed = capsys.readouterr().out
    present = attachment(model)
    assert present is not None
    assert printed.strip() == present.table()
    lines = [re.split(r"\s{2,}", line) for line in printed.splitlines()]
    factors = {"c_attn": 2 * 4 * (96 + 32), "c_proj": 2 * 4 * (32 + 32)}
    assert ["transformer.h.*.attn.c_attn", "Conv1D", "96 x 32", "4", "2", f"{factors['c_attn']:,}"] in lines
    assert ["transformer.h.*.attn.c_proj", "Conv1D", "32 x 32", "4", "2", f"{factors['c_proj']:,}"] in lines
    assert f"rosa: {sum(factors.values()):,} trainable parameters" in printed
    assert printed.rstrip().endswith("and 0 in the head")
    attach(build("gpt2"), RosaConfig(rank=4), verbose=False)
    assert capsys.readouterr().out == ""


def test_the_table_keeps_layers_of_different_rank_apart() -> None:
    present = attachment(attached("llama", RosaConfig(rank=0.25)))
    assert present is not None
    ranks = {layer.name.rpartition(".")[2]: layer.rank for layer in present.layers}
    assert ranks == {"q_proj": 8, "k_proj": 4, "v_proj": 4, "o_proj": 8}
    assert len(present.table().splitlines()) == 1 + 4 + 1


# --- errors ----------------------------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "identity": {name: id(parameter) for name, parameter in model.named_parameters()},
        "gradients": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modules": {name: (type(module), id(module), module.training) for name, module in model.named_modules()},
    }


def assert_as_it_was(model: nn.Module, before: dict[str, Any]) -> None:
    """The restored state equals the earlier one bit for bit."""
    after = snapshot(model)
    for key in ("identity", "gradients", "modules"):
        assert after[key] == before[key]
    assert list(after["weights"]) == list(before["weights"])
    for name, weight in after["weights"].items():
        assert torch.equal(weight.view(torch.uint8), before["weights"][name].view(torch.uint8)), name
    assert attachment(model) is None
    assert not list(adapters(model))


@pytest.mark.parametrize("config", [RosaConfig, LoraConfig])
@pytest.mark.parametrize("rank", [0, -1, 1.5, 1.0, 0.0, -0.5, float("nan"), True, "8", None])
def test_impossible_ranks_are_refused_before_any_model(config: type[RosaConfig | LoraConfig], rank: Any) -> None:
    with pytest.raises(ConfigError, match=rf"method\.rank={re.escape(repr(rank))}"):
        config(rank=rank)


@pytest.mark.parametrize("config", [RosaConfig, LoraConfig])
@pytest.mark.parametrize(("rank", "said"), [(17, "rank 17.*1 to min.* = 16"), (0.05, "0.05 .a share of 16. is 0")])
def test_a_rank_that_one_layer_cannot_have_names_that_layer(config: Any, rank: Any, said: str) -> None:
    """Llama's query layer is 32 x 32, and comes first; its key layer is 16 x 32."""
    model = build("llama")
    model.model.embed_tokens.weight.requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(AdapterError, match=rf"model\.layers\.0\.self_attn\.k_proj \(16 x 32\).*{said}"):
        attach(model, config(rank=rank), verbose=False)
    assert_as_it_was(model, before)


@pytest.mark.parametrize("method", [RosaConfig, LoraConfig])
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_targets_that_match_nothing_list_what_there_is(name: str, method: Any) -> None:
    model = build(name).train()
    before = snapshot(model)
    with pytest.raises(AdapterError) as caught:
        attach(model, method(targets=["q_proj"]), verbose=False)
    message = str(caught.value)
    assert "'q_proj'" in message
    assert type(model).__name__ in message
    for layer in ATTENTION[name]:
        assert re.sub(r"\.\d+\.", ".*.", layer) in message
    assert_as_it_was(model, before)


def test_ia3_names_the_layers_of_an_architecture_it_does_not_know() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    before = snapshot(model)
    with pytest.raises(AdapterError, match="no key and value layer in Sequential.*0, 2"):
        attach(model, IA3Config(), verbose=False)
    assert_as_it_was(model, before)


@pytest.mark.parametrize("second", ["rosa", "full"])
@pytest.mark.parametrize("first", METHODS)
def test_attaching_twice_is_refused_and_harmless(first: str, second: str) -> None:
    model = attached("roberta", METHODS[first]())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AdapterError, match=rf"has {METHODS[first]().name} attached already.*merge"):
        attach(model, METHODS[second](), verbose=False)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in attached("roberta", METHODS[first]()).named_parameters()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    attach(merge(model), METHODS[second](), verbose=False)


@pytest.mark.parametrize("method", [None, "lora", "ia3", "full"])
def test_resampling_without_rosa_is_refused(method: str | None) -> None:
    model = attached("roberta", METHODS[method]()) if method else build("roberta")
    with pytest.raises(AdapterError, match=r"nothing to resample; adapt a plain model by rosa\.attach"):
        resample(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_a_weight_that_is_not_finite_names_the_layer_and_undoes_the_rest(name: str, bad: float) -> None:
    model = build(name)
    layer = ATTENTION[name][-1]
    with torch.no_grad():
        model.get_submodule(layer).weight[1, 2] = bad
    before = snapshot(model)
    with pytest.raises(AdapterError, match=f"{re.escape(layer)}: 1 of 1024 weights are not finite"):
        attach(model, RosaConfig(rank=4), verbose=False)
    assert_as_it_was(model, before)


def test_a_resample_of_a_diverged_layer_names_it() -> None:
    model = attached("roberta", RosaConfig(rank=4))
    layer = ATTENTION["roberta"][2]
    with torch.no_grad():
        model.get_submodule(layer).A[0, 0] = float("nan")
    with pytest.raises(AdapterError, match=f"{re.escape(layer)}: 32 of 1024 weights are not finite.*diverged"):
        resample(model)


# --- what a checkpoint must hold -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_changing_state_restores_the_function_exactly(name: str, method: str) -> None:
    model = attached(name, METHODS[method](), seed=0)
    train_steps(model, name)
    if method == "rosa":
        resample(model, generator=generator(0, "resample"))
        train_steps(model, name)
    saved = {key: tensor.clone() for key, tensor in changing_state(model).items()}
    expected = logits(model, name)
    other = attached(name, METHODS[method](), seed=1)
    perturb(other)
    assert not torch.equal(logits(other, name), expected)
    load_changing_state(other, saved, "checkpoint")
    assert torch.equal(logits(other, name), expected)
    assert {n: id(p) for n, p in other.named_parameters() if p.requires_grad}.keys() <= saved.keys()


def test_changing_state_is_all_that_training_changes_and_little_else() -> None:
    """A checkpoint has nothing of a frozen backbone except, for ROSA, the layers that a resample changes."""
    for method in ("lora", "ia3"):
        model = attached("roberta", METHODS[method]())
        assert set(changing_state(model)) == {n for n, p in model.named_parameters() if p.requires_grad}
    model = attached("roberta", RosaConfig(rank=4, train="a"))
    layers = ATTENTION["roberta"]
    expected = {f"{layer}.{tensor}" for layer in layers for tensor in ("A", "B", "base.weight", "visited")}
    expected |= set(HEAD["roberta"])
    assert set(changing_state(model)) == expected


OTHERS: dict[str, MethodConfig] = {
    "rank": RosaConfig(rank=3),
    "lora": LoraConfig(rank=4),
    "ia3": IA3Config(),
    "full": FullConfig(),
    "targets": RosaConfig(rank=4, targets=["query"]),
    "frozen head": RosaConfig(rank=4, head="freeze"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_tensors_of_another_method_or_rank_are_refused(other: str) -> None:
    model = attached("roberta", RosaConfig(rank=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    foreign = changing_state(attached("roberta", OTHERS[other]))
    with pytest.raises(AdapterError, match=r"runs/x/checkpoint-3 is a checkpoint of another.*train\.force=true"):
        load_changing_state(model, foreign, "runs/x/checkpoint-3")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("lacking", "rest"), [(2, r""), (3, r""), (4, r" \(and 1 more\)"), (5, r" \(and 2 more\)")])
def test_of_many_tensors_that_do_not_fit_three_are_named(lacking: int, rest: str) -> None:
    model = attached("roberta", RosaConfig(rank=4))
    saved = dict(list(changing_state(model).items())[lacking:])
    said = "; ".join([r"\S+ is missing"] * min(lacking, 3)) + rest
    with pytest.raises(AdapterError, match=rf"^file is a checkpoint of another method, rank or model: {said}\. Remove"):
        load_changing_state(model, saved, "file")


def test_the_hash_of_what_is_frozen_is_of_names_dtypes_and_shapes_too() -> None:
    def hashed(name: str, tensor: Tensor) -> str:
        model = nn.Module()
        model.register_buffer(name, tensor)
        return frozen_hash(model)

    zeros = torch.zeros(2, 3)
    assert hashed("a", zeros) == hashed("a", torch.zeros(2, 3))
    others = [("b", zeros), ("a", zeros.T), ("a", zeros.int()), ("a", zeros + 1)]
    assert len({hashed("a", zeros), *(hashed(*other) for other in others)}) == 5


# --- other properties ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3", "ia3-inputs"])
def test_a_copy_of_an_attached_model_is_independent(method: str) -> None:
    model = attached("gpt2", METHODS[method]())
    expected = logits(model, "gpt2")
    duplicate = copy.deepcopy(model)
    perturb(duplicate)
    trained = logits(duplicate, "gpt2")
    merge(duplicate)
    assert relative_difference(logits(duplicate, "gpt2"), trained) <= 1e-5
    assert torch.equal(logits(model, "gpt2"), expected)


def test_the_public_names_are_those_of_the_package() -> None:
    assert rosa.attach is attach
    assert rosa.merge is merge
    assert rosa.resample is resample
    assert rosa.AdapterError is AdapterError
    with pytest.raises(AttributeError, match="no attribute 'atach'.*attach"):
        _ = rosa.atach


class ForbiddenOperations(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses operators that make the CPU wait for a GPU: they read a value, or their shape depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        operation = func.overloadpacket.__name__
        waits = operation in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")
        if operation.startswith("index"):
            indices = args[1] if isinstance(args[1], (list, tuple)) else ()
            waits |= any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        if waits:
            raise AssertionError(f"{func} synchronises on a GPU")
        return func(*args, **(kwargs or {}))


WATCHED = [(method, name) for method in ("rosa", "lora", "robust", "ia3", "ia3-inputs") for name in ("roberta", "gpt2")]


@pytest.mark.parametrize(("method", "name"), WATCHED)
def test_no_operation_in_a_layer_waits_for_the_device(method: str, name: str) -> None:
    """Checked here without a GPU; in tests/test_gpu.py CUDA itself reports synchronizations."""
    model = attached(name, METHODS[method]())
    for _, adapter in adapters(model):
        features = adapter.weight.shape[0 if name == "gpt2" else 1]
        x = tiny.inputs(2, 3, features)
        with ForbiddenOperations():
            adapter(x)


# --- what users get wrong --------------------------------------------------------------------------------------------


def test_a_misspelt_pattern_beside_a_good_one_is_refused() -> None:
    with pytest.raises(AdapterError, match=r"\['vlaue'\] match none"):
        attach(build("roberta"), RosaConfig(rank=2, targets=["query", "vlaue"]), verbose=False)


def test_a_string_of_patterns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.targets"):
        RosaConfig(targets="*attn*")  # type: ignore[arg-type]


def test_a_module_under_two_names_is_left_alone() -> None:
    """Wrapping a shared module under one name only would change the other one's outputs."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Linear(6, 6)
            self.again = self.attention

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.attention(x))

    with pytest.raises(AdapterError, match="match none of the 0 linear layers"):
        attach(Shared(), RosaConfig(rank=2), verbose=False)


def test_merge_gives_the_head_back_its_dtype() -> None:
    model = build("roberta").bfloat16()
    before = {name: parameter.dtype for name, parameter in model.named_parameters()}
    attach(model, RosaConfig(rank=2), verbose=False)
    assert model.classifier.out_proj.weight.dtype == torch.float32
    merge(model)
    assert {name: parameter.dtype for name, parameter in model.named_parameters()} == before
    logits(model, "roberta")


def test_something_else_than_a_methods_configuration_is_refused() -> None:
    from rosa.config import MethodConfig

    with pytest.raises(AdapterError, match="expected one of .*RosaConfig"):
        attach(build("roberta"), MethodConfig(), verbose=False)


@pytest.mark.parametrize(
    ("config", "option", "value"),
    [
        (RosaConfig(), "factorization", "svd"),
        (RosaConfig(), "every", -1),
        (RobustConfig(), "schedule", "late"),
        (LoraConfig(), "rank", 0),
        (IA3Config(), "variant", "all"),
        (FullConfig(), "head", "fast"),
    ],
)
def test_an_option_that_was_set_to_a_wrong_value_is_refused(config: MethodConfig, option: str, value: Any) -> None:
    """A dataclass checks its fields when it is made, but not when one is set."""
    model = build("roberta")
    before = [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
    setattr(config, option, value)
    with pytest.raises(ConfigError, match=re.escape(f"method.{option}={value!r}: expected ")):
        attach(model, config, verbose=False)
    assert [(name, parameter.requires_grad) for name, parameter in model.named_parameters()] == before


def test_a_configuration_that_is_changed_later_changes_no_attached_model() -> None:
    config = RosaConfig(rank=2, rank_pattern={"query": 3}, targets=["query", "key"])
    model = build("roberta")
    attach(model, config, verbose=False)
    expected = copy.deepcopy(config)
    config.optimizer_state, config.every = "keep", 5
    config.targets.append("value")
    config.rank_pattern["key"] = 1
    present = attachment(model)
    assert present is not None
    assert present.config == expected
    assert {one.optimizer_state() for _, one in adapters(model) if isinstance(one, RosaLinear)} == {"reset"}
    optimizer = train_steps(model, "roberta")
    resample(model, optimizer=optimizer)
    factors = [factor for _, adapter in adapters(model) for factor in adapter.factors().values()]
    assert not any(factor in optimizer.state for factor in factors)


def test_a_module_in_evaluation_mode_stays_in_it() -> None:
    model = build("roberta").train()
    model.roberta.encoder.layer[0].attention.eval()
    attach(model, LoraConfig(rank=2, dropout=0.5), verbose=False)
    modes = [adapter.training for _, adapter in adapters(model)]
    assert modes == [False] * 4 + [True] * 4


WRONG: dict[str, list[Any]] = {
    "int": [1.5, "1", True, None], "float": ["1", False, None], "str": [1, None, b"ab"], "bool": [1, "true", None],
}  # fmt: skip
"""Values that are not of a type, by the type of a dataclass's field."""


@pytest.mark.parametrize("config", [RosaConfig, LoraConfig, IA3Config, RobustConfig, FullConfig])
def test_a_value_of_another_type_is_refused_by_its_key(config: type[Any]) -> None:
    """From Python: Hydra converts or refuses what comes from files."""
    seen = 0
    for field in dataclasses.fields(config):
        for value in WRONG.get(field.type, []) if field.name != "name" else [1]:
            seen += 1
            with pytest.raises(ConfigError, match=re.escape(f"method.{field.name}={value!r}: expected ")):
                config(**{field.name: value})
    assert seen


@pytest.mark.parametrize("given", [None, nn.Linear, "bert"])
def test_what_is_no_model_is_refused(given: Any) -> None:
    for call in (lambda: attach(given, RosaConfig(rank=2)), lambda: merge(given), lambda: resample(given)):
        with pytest.raises(AdapterError, match="expected a torch.nn.Module"):
            call()


def test_a_model_that_is_a_linear_layer_itself_is_refused() -> None:
    with pytest.raises(AdapterError, match="match none of the 0 linear layers of Linear"):
        attach(nn.Linear(4, 4), RosaConfig(rank=2, targets=["*"]), verbose=False)


def test_what_is_no_optimizer_is_refused_before_anything_moves() -> None:
    model = build("bert")
    attach(model, RosaConfig(rank=2), generator=torch.Generator().manual_seed(0), verbose=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given: Any = "adam"
    with pytest.raises(AdapterError, match=r"optimizer='adam': expected a torch\.optim\.Optimizer"):
        resample(model, optimizer=given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("given", [3, "cpu"])
def test_what_is_no_generator_is_refused(given: Any) -> None:
    with pytest.raises(AdapterError, match=r"generator=.*: expected a torch\.Generator"):
        attach(build("bert"), RosaConfig(rank=2), generator=given, verbose=False)


@pytest.mark.parametrize("config", [FullConfig(), LoraConfig(rank=2, head=["scores"])], ids=["full", "head"])
def test_a_parameter_that_cannot_train_is_named_and_nothing_changes(config: MethodConfig) -> None:
    model = build("roberta")
    model.scores = nn.Module()
    model.scores.codes = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    before = snapshot(model)
    with pytest.raises(AdapterError, match=r"scores\.codes is of torch\.int8 and cannot train"):
        attach(model, config, verbose=False)
    assert_as_it_was(model, before)


def test_a_target_that_is_left_out_is_said_why() -> None:
    model = build("roberta")
    for layer in model.roberta.encoder.layer:
        nn.utils.parametrizations.weight_norm(layer.attention.self.query)
    with pytest.raises(AdapterError, match=r"layer\.1\.attention\.self\.query has a weight that is computed"):
        attach(model, RosaConfig(rank=2, targets=["query"]), verbose=False)
    with pytest.raises(AdapterError, match=r"; classifier\.dense is in the head"):
        attach(model, RosaConfig(rank=2, targets=["classifier.dense"]), verbose=False)
    with pytest.raises(AdapterError, match=r"; lm_head is the language model's output layer"):
        attach(build("llama"), RosaConfig(rank=2, targets=["lm_head"]), verbose=False)


def test_running_means_of_a_frozen_layer_are_in_the_changing_state() -> None:
    """Batch normalization changes them while training, whether or not its parameters train."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(0)
        built = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).train()
        return attach(built, RosaConfig(rank=2, targets=["*"]), generator=generator(seed, "adapter"), verbose=False)

    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    trained, other = model(0), model(1)
    trained(x + 3)
    load_changing_state(other, changing_state(trained), "checkpoint")
    assert torch.equal(other.eval()(x), trained.eval()(x))
