"""ROSA through PEFT on tiny models: the base is unchanged bit for bit, saved files are complete, misuse is refused."""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import rosa
from rosa.errors import AdapterError
from rosa.peft import RosaConfig
from rosa.peft.layer import RosaTunerLinear
from rosa.utils.seeding import generator
from tests.adapters.tiny import HIDDEN, attached, batch, build, logits, relative_difference, train_steps

NAMES = ("llama", "gpt2", "t5", "roberta")


def layers(model: nn.Module) -> dict[str, RosaTunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, RosaTunerLinear)}


def wrapped(name: str, seed: int = 0, **options) -> PeftModel:
    """A fresh tiny model wrapped by PEFT."""
    model = build(name)
    torch.manual_seed(seed)
    return get_peft_model(model, RosaConfig(**{"r": 4, **options})).eval()


def trained(name: str, resamples: int = 2, **options) -> PeftModel:
    """The same after some training and resamples."""
    model = wrapped(name, **options)
    for step in range(resamples + 1):
        if step:
            rosa.resample(model, generator=generator(0, "resample", step))
        train_steps(model, name, 2)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_function_stays_when_adapters_are_added_and_at_each_resample(name):
    expected = logits(build(name), name)
    model = wrapped(name)
    assert relative_difference(logits(model, name), expected) <= 1e-5
    for _ in range(3):
        train_steps(model, name, 2)
        before = logits(model, name)
        assert relative_difference(before, expected) > 1e-3
        rosa.resample(model)
        assert relative_difference(logits(model, name), before) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"factorization": "random_add"}, {"factorization": "random_orthogonal"}])
def test_it_trains_as_rosa_attach_does_to_the_last_bit(name, options):
    method = rosa.RosaConfig(rank=4, head="freeze", **options)
    mine = build(name)
    torch.manual_seed(0)
    rosa.attach(mine, method, verbose=False)
    theirs = wrapped(name, **options)
    for step in range(3):
        for model in (mine, theirs):
            optimizer = train_steps(model, name, 2)
            rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        assert torch.equal(logits(mine, name), logits(theirs, name))
    trainable = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (mine, theirs)]
    assert trainable[0] == trainable[1] > 0
    plain, merged = rosa.merge(mine), theirs.merge_and_unload()
    assert type(merged) is type(plain)
    expected = plain.state_dict()
    assert list(merged.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in merged.state_dict().items())


class Calls(TorchDispatchMode):
    """The operators that are called, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_calls_the_operators_of_rosa_attach_and_no_other(name):
    mine = rosa.attach(build(name), rosa.RosaConfig(rank=4, head="freeze"), verbose=False)
    found = []
    for model in (mine, wrapped(name)):
        with Calls() as calls:
            model(**batch(name)).loss.backward()
        found.append(calls.names)
    assert len(found[0]) > 100
    assert found[0] == found[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_is_intact_bit_for_bit_after_five_resamples(name, dtype):
    base = build(name).to(dtype)
    expected = logits(base, name)
    torch.manual_seed(0)
    model = get_peft_model(build(name).to(dtype), RosaConfig(r=2)).eval()
    for step in range(5):
        train_steps(model, name, 1)
        rosa.resample(model, generator=generator(0, "resample", step))
    train_steps(model, name, 1)
    out = logits(model, name)
    assert not torch.equal(out, expected)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), expected)
    assert torch.equal(logits(model, name), out)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model, name), expected)
    model.merge_adapter()
    model.unmerge_adapter()
    assert torch.equal(logits(model, name), out)
    model.add_adapter("second", RosaConfig(r=2))
    model.set_adapter("second")
    assert relative_difference(logits(model, name), expected) <= (1e-5 if dtype is torch.float32 else 0.05)
    model.set_adapter("default")
    assert torch.equal(logits(model, name), out)
    plain = model.unload()
    assert torch.equal(logits(plain, name), expected)
    weights = base.state_dict()
    assert list(plain.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in plain.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rank", "kept"), [(1, "history"), (4, "frozen")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_saved_adapter_loads_to_the_same_bits(tmp_path, name, rank, kept, dtype, low_cpu_mem_usage):
    torch.manual_seed(0)
    model = get_peft_model(build(name).to(dtype), RosaConfig(r=rank)).eval()
    for step in range(4):
        train_steps(model, name, 1)
        rosa.resample(model, generator=generator(0, "resample", step))
    train_steps(model, name, 1)
    model.save_pretrained(tmp_path)
    saved = {key.rpartition("rosa_")[2] for key in load_file(tmp_path / "adapter_model.safetensors")}
    assert saved >= {"A", "B", kept, "visited"}
    if dtype is torch.float32:
        assert saved.isdisjoint({"history", "frozen"} - {kept})
    loaded = PeftModel.from_pretrained(build(name).to(dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded, name), logits(model, name))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    # It goes on as the first would.
    again = PeftModel.from_pretrained(build(name).to(dtype), tmp_path, is_trainable=True).eval()
    for one in (model, again):
        rosa.resample(one, generator=generator(0, "resample", 9))
        train_steps(one, name, 2)
    assert torch.equal(logits(again, name), logits(model, name))
    for one, folder in ((model, "one"), (again, "two")):
        one.save_pretrained(tmp_path / folder)
    one, two = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("one", "two"))
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_saved_adapter_is_as_small_as_its_factors(tmp_path):
    model = trained("llama", resamples=1, r=1)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    kinds = {key.rpartition("rosa_")[2] for key in tensors}
    assert kinds == {"A", "B", "history", "visited"}
    factors = sum(tensor.numel() for key, tensor in tensors.items() if key.endswith(("rosa_A", "rosa_B")))
    history = sum(tensor.numel() for key, tensor in tensors.items() if key.endswith("history"))
    assert history == 3 * factors  # the start and the end of the first subspace, and the start of the second


def test_a_whole_state_dict_holds_the_history():
    model = trained("llama", r=1)
    other = wrapped("llama", seed=1, r=1)
    other.load_state_dict(model.state_dict())
    one, two = (peft.get_peft_model_state_dict(each) for each in (model, other))
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(logits(other, "llama"), logits(model, "llama"))


def test_a_copy_is_independent():
    model = trained("llama", r=1)
    before = logits(model, "llama")
    twin = copy.deepcopy(model)
    rosa.resample(twin)
    train_steps(twin, "llama", 2)
    assert torch.equal(logits(model, "llama"), before)
    assert len(next(iter(layers(model).values())).adapter("default").history) == 5


@pytest.mark.parametrize("safe_merge", [False, True])
def test_merging_changes_the_function_by_rounding_alone(safe_merge):
    model = trained("gpt2")
    before = logits(model, "gpt2")
    model.merge_adapter(safe_merge=safe_merge)
    assert relative_difference(logits(model, "gpt2"), before) <= 1e-5
    assert model.get_model_status().merged_adapters == ["default"]
    model.unmerge_adapter()
    assert torch.equal(logits(model, "gpt2"), before)
    plain = model.merge_and_unload(safe_merge=safe_merge)
    assert relative_difference(logits(plain, "gpt2"), before) <= 1e-5
    assert not layers(plain)
    assert rosa.adapters.attachment(plain) is None


def test_a_safe_merge_refuses_what_is_not_finite_and_changes_nothing():
    model = trained("llama")
    name, layer = next(iter(layers(model).items()))
    weight = layer.base_layer.weight.clone()
    with torch.no_grad():
        layer.adapter("default").A.fill_(float("nan"))
    with pytest.raises(AdapterError, match=f"{layer.name}: with default merged, .* not be finite"):
        model.merge_adapter(safe_merge=True)
    assert name.endswith(layer.name)
    assert torch.equal(layer.base_layer.weight, weight)
    assert not layer.merged


def test_several_adapters_each_with_its_own_weights():
    base = logits(build("llama"), "llama")
    model = trained("llama")
    first = logits(model, "llama")
    model.add_adapter("other", RosaConfig(r=2, target_modules=["q_proj", "up_proj"], every=5, unit="step"))
    assert torch.equal(logits(model, "llama"), first)
    model.set_adapter("other")
    assert rosa.adapters.attachment(model).config.every == 5
    history = len(next(iter(layers(model).values())).adapter("default").history or ())
    train_steps(model, "llama", 2)
    assert len(rosa.resample(model)) == 4  # two layers of two targets; the adapter that rests stays where it is
    assert len(next(iter(layers(model).values())).adapter("default").history or ()) == history
    train_steps(model, "llama", 2)
    second = logits(model, "llama")
    assert relative_difference(second, first) > 1e-3
    model.base_model.set_adapter(["default", "other"])
    both = logits(model, "llama")
    model.merge_adapter()
    assert relative_difference(logits(model, "llama"), both) <= 1e-5
    model.unmerge_adapter()
    for name, expected in (("default", first), ("other", second)):
        model.set_adapter(name)
        assert torch.equal(logits(model, "llama"), expected)
        trains = {p for p, parameter in model.named_parameters() if parameter.requires_grad}
        assert trains
        assert all(f".{name}." in p for p in trains)
    deltas = [layers(model)["base_model.model.model.layers.0.self_attn.q_proj"].get_delta_weight(n) for n in
              ("default", "other")]  # fmt: skip
    assert relative_difference(deltas[0], deltas[1]) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that another adapter becomes the active one
        model.delete_adapter("other")
    assert torch.equal(logits(model, "llama"), first)
    assert set(model.peft_config) == {"default"}
    with model.disable_adapter():
        assert torch.equal(logits(model, "llama"), base)


def test_two_adapters_are_saved_and_loaded_under_their_names(tmp_path):
    model = trained("llama")
    model.add_adapter("other", RosaConfig(r=2))
    model.set_adapter("other")
    train_steps(model, "llama", 2)
    second = logits(model, "llama")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path)
    loaded.load_adapter(tmp_path / "other", "renamed")
    loaded.set_adapter("renamed")
    assert torch.equal(logits(loaded, "llama"), second)
    loaded.set_adapter("default")
    model.set_adapter("default")
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


def test_what_trains_is_what_peft_reports(capsys):
    model = wrapped("llama")
    factors = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16))
    assert model.get_nb_trainable_parameters()[0] == factors
    model.print_trainable_parameters()
    assert capsys.readouterr().out.startswith(f"trainable params: {factors:,} ||")
    status = model.get_model_status()
    assert (status.peft_types, status.num_adapter_layers) == ({"default": "ROSA"}, 8)
    assert status.requires_grad == {"default": True}
    described = rosa.adapters.attachment(model)
    assert [one.name for one in model.get_layer_status()] == [f"model.{one.name}" for one in described.layers]
    assert described.trainable_parameters == factors


@pytest.mark.parametrize(("train", "expected"), [("a", {"A"}), ("b", {"B"})])
def test_the_factor_that_rests_stays_frozen_through_peft(train, expected):
    model = wrapped("llama", train=train)
    with model.disable_adapter():
        assert not any(parameter.requires_grad for parameter in model.parameters())
    model.set_adapter("default")
    model.set_requires_grad("default")
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("rosa_only", 8), ("all", 19)])
def test_biases_train_and_are_saved_as_asked(tmp_path, bias, count):
    model = wrapped("roberta", bias=bias)
    names = [name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
    assert len(names) == count
    train_steps(model, "roberta", 2)
    rosa.resample(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("roberta"), tmp_path)
    assert torch.equal(logits(loaded, "roberta"), logits(model, "roberta"))
    merged = model.merge_and_unload()
    assert relative_difference(logits(merged, "roberta"), logits(loaded, "roberta")) <= 1e-5


def test_targets_follow_pefts_rules():
    def adapted(**options) -> set[str]:
        return {layer.name for layer in layers(wrapped("llama", **options)).values()}

    attention = {f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkvo"}
    assert adapted() == attention
    assert adapted(target_modules=["q_proj"]) == {f"model.layers.{i}.self_attn.q_proj" for i in range(2)}
    assert adapted(target_modules=r".*\.1\..*[qv]_proj") == {f"model.layers.1.self_attn.{p}_proj" for p in "qv"}
    mlp = {f"model.layers.{i}.mlp.{p}_proj" for i in range(2) for p in ("gate", "up", "down")}
    assert adapted(target_modules="all-linear") == attention | mlp
    assert adapted(exclude_modules=["k_proj", "v_proj"]) == {n for n in attention if n[-6] in "qo"}
    assert adapted(target_modules=["q_proj"], layers_to_transform=1) == {"model.layers.1.self_attn.q_proj"}
    ranks = {layer.name: layer.adapter("default").rank for layer in layers(
        wrapped("llama", r=0.25, rank_pattern={"q_proj": 2, "layers.1.self_attn.o_proj": 3})).values()}  # fmt: skip
    assert {ranks[f"model.layers.{i}.self_attn.q_proj"] for i in range(2)} == {2}
    assert ranks["model.layers.1.self_attn.o_proj"] == 3
    assert ranks["model.layers.0.self_attn.k_proj"] == 4  # a quarter of 16
    assert ranks["model.layers.0.self_attn.o_proj"] == 8


class Custom(nn.Module):
    """Linear layers outside of transformers, an embedding, a convolution, and a weight in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 6, bias=False)
        self.twin = nn.Linear(8, 6, bias=False)
        self.convolution = nn.Conv2d(1, 1, 1)
        self.twin.weight = self.second.weight

    def forward(self, tokens):
        x = self.first(self.embedding(tokens))
        return self.second(x) + self.twin(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["embedding"]}, "embedding is a Embedding, which is not supported: ROSA adapts"),
        ({"target_modules": ["convolution"]}, "convolution is a Conv2d, which is not supported"),
        ({"target_modules": ["first", "second"]}, "second.weight is tied to twin.weight, so adapting one"),
        ({"target_modules": ["twin"]}, "twin.weight is tied to second.weight"),
        ({"target_modules": ["q_proj"]}, r"target_modules=\['q_proj'\] matches none .* Custom.*; it has: first$"),
        ({}, "target_modules=None: no linear layer of Custom .* it has: first$"),
        ({"target_modules": ["first"], "r": 7}, r"first \(8 x 6\): rank 7.*: expected 1 to min\(out, in\) = 6"),
        ({"target_modules": ["first"], "exclude_modules": ["first"]}, "matches none"),
    ],
)
def test_what_cannot_be_adapted_is_refused_by_name_and_the_model_is_left_alone(options, message):
    model = Custom()
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(AdapterError, match=message):
        get_peft_model(model, RosaConfig(**{"r": 2, **options}))
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_custom_models_train():
    torch.manual_seed(0)
    plain = Custom()
    tokens = torch.arange(10)[None]
    expected = plain(tokens)
    model = get_peft_model(copy.deepcopy(plain), RosaConfig(r=2, target_modules=["first"]))
    assert relative_difference(model(tokens), expected) <= 1e-5
    model(tokens).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        f"base_model.model.first.rosa_layer.default.{factor}" for factor in "AB"
    }


def test_quantized_weights_are_refused_by_name():
    model = build("llama")
    layer = model.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(AdapterError, match=r"model.layers.0.self_attn.q_proj \(Linear\) has a weight of torch.int8"):
        get_peft_model(model, RosaConfig(target_modules=["q_proj"]))


def test_what_peft_can_do_with_lora_alone_is_refused_by_name(tmp_path):
    from peft.utils.hotswap import hotswap_adapter

    model = trained("llama")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA but"):
        hotswap_adapter(model, str(tmp_path), "default")
    with pytest.raises(AdapterError, match="add_weighted_adapter: .* as_lora=True"):
        model.add_weighted_adapter(["default"], [1.0], "mixed")
    with pytest.raises(AdapterError, match="adapter_names: ROSA cannot use different adapters for the rows"):
        model(input_ids=torch.zeros(1, 2, dtype=torch.long), adapter_names=["default"])
    with pytest.raises(ValueError, match="ROSA"):
        peft.PeftMixedModel(build("llama"), RosaConfig())


def test_a_model_takes_either_rosa_attach_or_peft():
    with pytest.raises(AdapterError, match=r"has rosa attached already; call rosa.merge\(model\) first"):
        get_peft_model(attached("llama", rosa.RosaConfig(rank=4)), RosaConfig())
    model = wrapped("llama")
    with pytest.raises(AdapterError, match=r"has rosa attached already; call model.merge_and_unload\(\)"):
        rosa.attach(model, rosa.RosaConfig(rank=4))
    with pytest.raises(AdapterError, match="was not attached by rosa.attach; .*merge_and_unload"):
        rosa.merge(model)
    rosa.attach(model.merge_and_unload(), rosa.RosaConfig(rank=4), verbose=False)


def test_a_file_of_another_rank_is_refused(tmp_path):
    trained("llama", r=2).save_pretrained(tmp_path)
    model = wrapped("llama", r=1)
    with pytest.raises(AdapterError, match=r"q_proj, adapter 'default': A has shape \(32, 2\), expected .*\(32, 1\)"):
        model.load_adapter(tmp_path, "default")


def test_adapters_can_be_injected_without_a_peft_model():
    model = build("llama")
    expected = logits(model, "llama")
    torch.manual_seed(0)
    peft.inject_adapter_in_model(RosaConfig(r=2), model)
    assert relative_difference(logits(model, "llama"), expected) <= 1e-5
    assert len(rosa.resample(model)) == 8
    state = peft.get_peft_model_state_dict(model)
    other = build("llama")
    peft.inject_adapter_in_model(RosaConfig(r=2), other)
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(logits(other, "llama"), logits(model, "llama"))


def test_a_layer_of_the_tiny_models_is_no_square():
    """Only layers that are not square reveal swapped sides."""
    assert {layer.base_layer.weight.shape for layer in layers(wrapped("llama")).values()} == {
        (HIDDEN, HIDDEN),
        (HIDDEN // 2, HIDDEN),
    }
