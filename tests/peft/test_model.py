"""ROSA and RoSA through PEFT: the base stays bit for bit, files hold what is needed, what is not there is refused."""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import rosa
from rosa.adapters import support
from rosa.errors import AdapterError
from rosa.peft import RobustConfig, RosaConfig
from rosa.peft.layer import TunerLinear
from rosa.utils.seeding import generator
from tests.adapters.tiny import (
    HIDDEN,
    attached,
    batch,
    build,
    give_support,
    logits,
    perturb,
    relative_difference,
    train_steps,
)

NAMES = ("llama", "gpt2", "t5", "roberta")
both = pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])


def layers(model: nn.Module) -> dict[str, TunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TunerLinear)}


def config_of(kind: type, **options) -> RosaConfig | RobustConfig:
    own = {"density": 0.05} if kind is RobustConfig else {}
    return kind(**{"r": 4, **own, **options})


def wrapped(name: str, seed: int = 0, kind: type = RosaConfig, **options) -> PeftModel:
    """A fresh tiny model wrapped by PEFT."""
    model = build(name)
    torch.manual_seed(seed)
    return get_peft_model(model, config_of(kind, **options)).eval()


def change_course(model: nn.Module, step: int = 1, **options) -> None:
    """A resample, or the choice of the sparse parts' positions."""
    if support.supported(model):
        give_support(model, seed=step)
    else:
        rosa.resample(model, generator=generator(0, "resample", step), **options)


def trained(name: str, changes: int = 2, **options) -> PeftModel:
    """The same after some training and changes of course."""
    model = wrapped(name, **options)
    for step in range(changes + 1):
        if step:
            change_course(model, step)
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


def method_of(kind: type, **options) -> rosa.RosaConfig | rosa.RobustConfig:
    """What ``rosa.attach`` takes for :func:`config_of`."""
    own = {"density": 0.05} if kind is RobustConfig else {}
    return kind.METHOD(rank=4, head="freeze", **own, **options)


@pytest.mark.spread
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RosaConfig, {}),
        (RosaConfig, {"factorization": "random_add"}),
        (RosaConfig, {"factorization": "random_orthogonal"}),
        (RobustConfig, {}),
        (RobustConfig, {"schedule": "sparse_only"}),
        (RobustConfig, {"schedule": "low_rank_only"}),
    ],
)
def test_it_trains_as_rosa_attach_does_to_the_last_bit(name, kind, options):
    mine = build(name)
    torch.manual_seed(0)
    rosa.attach(mine, method_of(kind, **options), verbose=False)
    theirs = wrapped(name, kind=kind, **options)
    for step in range(3):
        for model in (mine, theirs):
            optimizer = train_steps(model, name, 2)
            if kind is RosaConfig:
                rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
            else:
                give_support(model, step)
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


@both
@pytest.mark.parametrize("name", NAMES)
def test_a_step_calls_the_operators_of_rosa_attach_and_no_other(name, kind):
    mine = rosa.attach(build(name), method_of(kind), verbose=False)
    found = []
    for model in (mine, wrapped(name, kind=kind)):
        give_support(model)
        with Calls() as calls:
            model(**batch(name)).loss.backward()
        found.append(calls.names)
    assert len(found[0]) > 100
    assert found[0] == found[1]


@pytest.mark.spread
@both
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_is_intact_bit_for_bit_after_five_resamples(name, dtype, kind):
    base = build(name).to(dtype)
    expected = logits(base, name)
    torch.manual_seed(0)
    model = get_peft_model(build(name).to(dtype), config_of(kind, r=2)).eval()
    for step in range(5):
        train_steps(model, name, 1)
        change_course(model, step)
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
    model.add_adapter("second", config_of(kind, r=2))
    model.set_adapter("second")
    assert relative_difference(logits(model, name), expected) <= (1e-5 if dtype is torch.float32 else 0.05)
    model.set_adapter("default")
    assert torch.equal(logits(model, name), out)
    plain = model.unload()
    assert torch.equal(logits(plain, name), expected)
    weights = base.state_dict()
    assert list(plain.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in plain.state_dict().items())


@pytest.mark.spread
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "rank", "kept", "not_kept"),
    [
        (RosaConfig, 1, {"A", "B", "visited", "history"}, "frozen"),
        (RosaConfig, 4, {"A", "B", "visited", "frozen"}, "history"),
        (RobustConfig, 4, {"lora_A", "lora_B", "values", "index"}, "weight"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_saved_adapter_loads_to_the_same_bits(tmp_path, name, kind, rank, kept, not_kept, dtype, low_cpu_mem_usage):
    torch.manual_seed(0)
    model = get_peft_model(build(name).to(dtype), config_of(kind, r=rank)).eval()
    for step in range(4):
        train_steps(model, name, 1)
        change_course(model, step)
    train_steps(model, name, 1)
    model.save_pretrained(tmp_path)
    keys = load_file(tmp_path / "adapter_model.safetensors")
    saved = {key.rpartition(f".{kind.METHOD.NAME}_")[2] for key in keys}
    assert saved >= kept
    if dtype is torch.float32:
        assert not_kept not in saved
    loaded = PeftModel.from_pretrained(build(name).to(dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded, name), logits(model, name))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    # It goes on as the first would.
    again = PeftModel.from_pretrained(build(name).to(dtype), tmp_path, is_trainable=True).eval()
    for one in (model, again):
        train_steps(one, name, 2)
        change_course(one, 9)
        train_steps(one, name, 2)
    assert torch.equal(logits(again, name), logits(model, name))
    for one, folder in ((model, "one"), (again, "two")):
        one.save_pretrained(tmp_path / folder)
    one, two = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("one", "two"))
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


@both
def test_narrow_factors_cannot_be_asked_for_and_a_warning_says_so(kind):
    for dtype, asked, warns in [(torch.bfloat16, False, 1), (torch.bfloat16, True, 0), (torch.float32, False, 0)]:
        model = build("llama").to(dtype)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")  # once for each place
            model = get_peft_model(model, config_of(kind), autocast_adapter_dtype=asked)
            model.add_adapter("other", config_of(kind), autocast_adapter_dtype=asked)
        texts = [str(one.message) for one in caught if "autocast_adapter_dtype" in str(one.message)]
        assert len(texts) == warns
        assert all("autocast_adapter_dtype=False has no effect" in text and "bfloat16" in text for text in texts)
        factors = [p for layer in layers(model).values() for p in layer.adapter("default").factors().values()]
        assert all(factor.dtype is torch.float32 for factor in factors)


TYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize(("rank", "kept"), [(1, "history"), (4, "frozen")])
@pytest.mark.parametrize(("here", "there"), [(one, other) for one in TYPES for other in TYPES])
@pytest.mark.parametrize("factorization", ["svd_equal", "random_add"])
def test_a_saved_adapter_loads_on_the_same_base_in_another_dtype(
    tmp_path, factorization, here, there, rank, kept, trainable
):
    base = build("gpt2").to(torch.bfloat16)  # weights that each of them represents
    for parameter in base.parameters():
        parameter.data[parameter.abs() < 0.01] = 0  # float16 has no such small numbers of bfloat16
    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(base).to(here), config_of(RosaConfig, r=rank, factorization=factorization))
    for step in range(3 if rank == 1 else 8):
        for layer in layers(model).values():
            perturb(layer.adapter("default"), size=0.02)
        if step < 2 or kept == "frozen":
            change_course(model, step)
    model.save_pretrained(tmp_path)
    assert any(f"rosa_{kept}" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    loaded = PeftModel.from_pretrained(copy.deepcopy(base).to(there), tmp_path, is_trainable=trainable)
    for one, other in zip(layers(model).values(), layers(loaded).values(), strict=True):
        expected = one.get_delta_weight("default").double()
        difference = (other.get_delta_weight("default").double() - expected).norm() / expected.norm()
        assert difference <= (0 if here is there else 1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_pretrained_weight_loaded_under_an_adapter_is_used_or_refused(name):
    donor = build(name)
    for parameter in donor.parameters():
        parameter.data.mul_(1.5)
    for kind in (RosaConfig, RobustConfig):
        model = wrapped(name, kind=kind)
        names = {key.replace(".base_layer", "").removeprefix("base_model.model."): key for key in model.state_dict()}
        same, other = ({names[key]: tensor for key, tensor in one.state_dict().items()} for one in (build(name), donor))
        model.load_state_dict(same, strict=False)  # changes nothing
        if kind is RosaConfig:
            with pytest.raises(AdapterError, match=r"another pretrained weight, but adapter 'default' .* load the pre"):
                model.load_state_dict(other, strict=False)
        else:
            model.load_state_dict(other, strict=False)
            assert torch.equal(logits(model, name), logits(donor, name))
    # A whole state has what was split from its weight; an adapter that still waits for its file has nothing yet.
    whole = get_peft_model(copy.deepcopy(donor), config_of(RosaConfig)).eval()
    model = wrapped(name)
    model.load_state_dict(whole.state_dict())
    assert torch.equal(logits(model, name), logits(whole, name))
    waiting = get_peft_model(build(name), config_of(RosaConfig), low_cpu_mem_usage=True)
    waiting.load_state_dict(other, strict=False)


def test_a_saved_adapter_is_as_small_as_its_factors(tmp_path):
    model = trained("llama", changes=1, r=1)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    kinds = {key.rpartition("rosa_")[2] for key in tensors}
    assert kinds == {"A", "B", "history", "visited"}
    factors = sum(tensor.numel() for key, tensor in tensors.items() if key.endswith(("rosa_A", "rosa_B")))
    history = sum(tensor.numel() for key, tensor in tensors.items() if key.endswith("history"))
    assert history == 3 * factors  # the start and the end of the first subspace, and the start of the second


def test_a_saved_adapter_of_robust_adaptation_has_as_many_numbers_as_train_and_their_positions(tmp_path):
    model = trained("llama", kind=RobustConfig)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    numbers = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    assert numbers == model.get_nb_trainable_parameters()[0]
    positions = {key: tensor for key, tensor in tensors.items() if key.endswith("robust_index")}
    assert {tensor.dtype for tensor in positions.values()} == {torch.int32}
    assert sum(map(len, positions.values())) == sum(len(t) for key, t in tensors.items() if key.endswith("_values"))
    assert len(tensors) == 4 * 8


@both
def test_a_whole_state_dict_holds_all_of_an_adapter(kind):
    model = trained("llama", r=1, kind=kind)
    other = wrapped("llama", seed=1, r=1, kind=kind)
    other.load_state_dict(model.state_dict())
    one, two = (peft.get_peft_model_state_dict(each) for each in (model, other))
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(logits(other, "llama"), logits(model, "llama"))


@both
def test_a_copy_is_independent(kind):
    model = trained("llama", r=1, kind=kind)
    before = logits(model, "llama")
    twin = copy.deepcopy(model)
    change_course(twin, 9)
    train_steps(twin, "llama", 2)
    assert torch.equal(logits(model, "llama"), before)
    if kind is RosaConfig:
        assert len(next(iter(layers(model).values())).adapter("default").history) == 5


@both
@pytest.mark.parametrize("safe_merge", [False, True])
def test_merging_changes_the_function_by_rounding_alone(safe_merge, kind):
    model = trained("gpt2", kind=kind)
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


@both
def test_a_safe_merge_refuses_what_is_not_finite_and_changes_nothing(kind):
    model = trained("llama", kind=kind)
    name, layer = next(iter(layers(model).items()))
    weight = layer.base_layer.weight.clone()
    with torch.no_grad():
        next(iter(layer.adapter("default").factors().values())).fill_(float("nan"))
    with pytest.raises(AdapterError, match=f"{layer.name}: with default merged, .* not be finite"):
        model.merge_adapter(safe_merge=True)
    assert name.endswith(layer.name)
    assert torch.equal(layer.base_layer.weight, weight)
    assert not layer.merged


def test_the_adapter_that_rests_is_not_resampled():
    model = trained("llama", r=1)
    model.add_adapter("other", RosaConfig(r=2, target_modules=["q_proj", "up_proj"], every=5, unit="step"))
    model.set_adapter("other")
    assert rosa.adapters.attachment(model).config.every == 5
    resting = next(iter(layers(model).values())).adapter("default")
    assert len(resting.history) == 5
    assert len(rosa.resample(model)) == 4  # two layers of two targets
    assert len(resting.history) == 5


@both
def test_several_adapters_each_with_its_own_weights(kind):
    base = logits(build("llama"), "llama")
    model = trained("llama", kind=kind)
    first = logits(model, "llama")
    model.add_adapter("other", config_of(kind, r=2, target_modules=["q_proj", "up_proj"]))
    assert torch.equal(logits(model, "llama"), first)
    model.set_adapter("other")
    train_steps(model, "llama", 2)
    change_course(model, 9)
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


@both
def test_two_adapters_are_saved_and_loaded_under_their_names(tmp_path, kind):
    model = trained("llama", kind=kind)
    model.add_adapter("other", config_of(kind, r=2))
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


@both
def test_what_trains_is_what_peft_reports(capsys, kind):
    model = wrapped("llama", kind=kind)
    factors = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16))
    if kind is RobustConfig:
        factors += 2 * (2 * int(0.05 * 32 * 32) + 2 * int(0.05 * 32 * 16))
    assert model.get_nb_trainable_parameters()[0] == factors
    model.print_trainable_parameters()
    assert capsys.readouterr().out.startswith(f"trainable params: {factors:,} ||")
    status = model.get_model_status()
    assert (status.peft_types, status.num_adapter_layers) == ({"default": kind.METHOD.NAME.upper()}, 8)
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


@both
@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("only", 8), ("all", 19)])
def test_biases_train_and_are_saved_as_asked(tmp_path, bias, count, kind):
    model = wrapped("roberta", bias=f"{kind.METHOD.NAME}_only" if bias == "only" else bias, kind=kind)
    names = [name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
    assert len(names) == count
    train_steps(model, "roberta", 2)
    change_course(model)
    train_steps(model, "roberta", 2)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("roberta"), tmp_path)
    assert torch.equal(logits(loaded, "roberta"), logits(model, "roberta"))
    merged = model.merge_and_unload()
    assert relative_difference(logits(merged, "roberta"), logits(loaded, "roberta")) <= 1e-5


@both
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_a_bias_that_is_replaced_is_the_one_that_the_adapter_uses_and_trains(tmp_path, name, kind):
    """Loading may put other parameters in place of a layer's own."""
    options = {"bias": f"{kind.METHOD.NAME}_only", "kind": kind}
    model = wrapped(name, **options)
    perturb(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(name), tmp_path, low_cpu_mem_usage=True, is_trainable=True)
    assigned = wrapped(name, **options)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assigned.load_state_dict(state, assign=True)
    for other in (loaded, assigned):
        assert torch.equal(logits(other, name), logits(model, name))
        one = next(iter(layers(other).values()))
        bias = one.base_layer.bias.requires_grad_()
        one(torch.ones(1, one.in_features)).sum().backward()
        assert bool((bias.grad == 1).all())


def test_a_copy_of_an_adapter_alone_shares_the_pretrained_layer_and_one_of_a_model_has_its_own():
    model = wrapped("roberta")
    for whole in (model, copy.deepcopy(model)):
        for layer in layers(whole).values():
            assert copy.deepcopy(layer.adapter("default")).base.bias is layer.base_layer.bias


@both
def test_a_refused_file_leaves_every_layer_of_a_trained_adapter(tmp_path, kind):
    wrapped("llama", kind=kind, rank_pattern={"layers.1.self_attn.v_proj": 2}).save_pretrained(tmp_path)
    model = trained("llama", kind=kind)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AdapterError, match=r"layers\.1\.self_attn\.v_proj, adapter 'default'"):
        model.load_adapter(tmp_path, "default")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@both
def test_targets_follow_pefts_rules(kind):
    def adapted(**options) -> set[str]:
        return {layer.name for layer in layers(wrapped("llama", kind=kind, **options)).values()}

    attention = {f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkvo"}
    assert adapted() == attention
    assert adapted(target_modules=["q_proj"]) == {f"model.layers.{i}.self_attn.q_proj" for i in range(2)}
    assert adapted(target_modules=r".*\.1\..*[qv]_proj") == {f"model.layers.1.self_attn.{p}_proj" for p in "qv"}
    mlp = {f"model.layers.{i}.mlp.{p}_proj" for i in range(2) for p in ("gate", "up", "down")}
    assert adapted(target_modules="all-linear") == attention | mlp
    assert adapted(exclude_modules=["k_proj", "v_proj"]) == {n for n in attention if n[-6] in "qo"}
    assert adapted(target_modules=["q_proj"], layers_to_transform=1) == {"model.layers.1.self_attn.q_proj"}
    assert adapted(layers_to_transform=[1]) == {name for name in attention if ".1." in name}
    assert adapted(layers_to_transform=0, layers_pattern="layers") == {name for name in attention if ".0." in name}
    with pytest.raises(AdapterError, match=r"layers_to_transform=\[9\] leaves none of .*layers.0.self_attn.q_proj"):
        adapted(layers_to_transform=[9])
    patterns = {"q_proj": 2, "layers.1.self_attn.o_proj": 3}
    found = layers(wrapped("llama", kind=kind, r=0.25, rank_pattern=patterns)).values()
    ranks = {layer.name: layer.adapter("default").rank for layer in found}
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
        ({"target_modules": ["embedding"]}, "embedding is a Embedding, which is not supported: (ROSA|RoSA .*) adapts"),
        ({"target_modules": ["convolution"]}, "convolution is a Conv2d, which is not supported"),
        ({"target_modules": ["first", "second"]}, "second.weight is tied to twin.weight, so adapting one"),
        ({"target_modules": ["twin"]}, "twin.weight is tied to second.weight"),
        ({"target_modules": ["q_proj"]}, "target_modules: 'q_proj' names no module of Custom; it has: first$"),
        ({}, "target_modules=None: no linear layer of Custom .* it has: first$"),
        ({"target_modules": ["first"], "r": 7}, r"first \(8 x 6\): rank 7.*: expected 1 to min\(out, in\) = 6"),
        ({"target_modules": ["first"], "exclude_modules": ["first"]}, "matches none"),
    ],
)
@both
def test_what_cannot_be_adapted_is_refused_by_name_and_the_model_is_left_alone(options, message, kind):
    model = Custom()
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(AdapterError, match=message):
        get_peft_model(model, config_of(kind, **{"r": 2, **options}))
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("options", [{}, {"task_type": "SEQ_CLS"}])
@both
def test_an_adapter_that_cannot_begin_leaves_the_model_as_it_was(kind, options):
    def bad() -> RosaConfig | RobustConfig:
        return config_of(kind, **options, **({"support": "nowhere"} if kind is RobustConfig else {}))

    model = build("roberta")
    broken = next(p for name, p in model.named_parameters() if name.endswith("1.attention.self.query.weight"))
    before = {name: type(module) for name, module in model.named_modules()}
    with torch.no_grad():
        value = float(broken[0, 0])
        broken[0, 0] = float("nan")
    with pytest.raises(AdapterError, match=r"not finite|^support=nowhere"):
        get_peft_model(model, bad())
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert all(parameter.requires_grad for parameter in model.parameters())
    # As it was, it can be adapted; and an adapter that is there stays when another cannot begin.
    broken.data[0, 0] = value
    model = get_peft_model(model, config_of(kind, **options)).eval()
    change_course(model)
    train_steps(model, "roberta", 2)
    expected = logits(model, "roberta")
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    broken.data[0, 0] = float("nan")
    with pytest.raises(AdapterError, match=r"not finite|^support=nowhere"):
        model.add_adapter("second", bad())
    broken.data[0, 0] = value
    assert set(model.peft_config) == {"default"}
    assert torch.equal(logits(model, "roberta"), expected)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


@both
def test_custom_models_train(kind):
    torch.manual_seed(0)
    plain = Custom()
    tokens = torch.arange(10)[None]
    expected = plain(tokens)
    model = get_peft_model(copy.deepcopy(plain), config_of(kind, r=2, target_modules=["first"]))
    assert relative_difference(model(tokens), expected) <= 1e-5
    model(tokens).square().sum().backward()
    place = f"base_model.model.first.{kind.METHOD.NAME}_layer.default"
    factors = ("A", "B") if kind is RosaConfig else ("lora_A", "lora_B", "values")
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {f"{place}.{f}" for f in factors}


@both
def test_quantized_weights_are_refused_by_name(kind):
    model = build("llama")
    layer = model.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(AdapterError, match=r"model.layers.0.self_attn.q_proj \(Linear\) has a weight of torch.int8"):
        get_peft_model(model, kind(target_modules=["q_proj"]))


@both
def test_what_peft_can_do_with_lora_alone_is_refused_by_name(tmp_path, kind):
    from peft.utils.hotswap import hotswap_adapter

    model = trained("llama", kind=kind)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA but"):
        hotswap_adapter(model, str(tmp_path), "default")
    with pytest.raises(AdapterError, match=r"add_weighted_adapter: .* model.base_model.set_adapter\(\["):
        model.add_weighted_adapter(["default"], [1.0], "mixed")
    with pytest.raises(AdapterError, match="adapter_names: (ROSA|RoSA .*) cannot use different adapters for the rows"):
        model(input_ids=torch.zeros(1, 2, dtype=torch.long), adapter_names=["default"])
    with pytest.raises(ValueError, match=kind.METHOD.NAME.upper()):
        peft.PeftMixedModel(build("llama"), kind())


@both
def test_a_pretrained_model_with_biases_takes_an_adapter_with_little_memory(tmp_path, kind):
    build("gpt2").save_pretrained(tmp_path / "base")
    source = wrapped("gpt2", kind=kind)
    perturb(source)
    source.save_pretrained(tmp_path / "adapter")
    base = type(build("gpt2")).from_pretrained(tmp_path / "base")  # its parameters have attributes of transformers
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter", low_cpu_mem_usage=True).eval()
    assert torch.equal(logits(loaded, "gpt2"), logits(source, "gpt2"))


@both
def test_transformers_own_loading_is_refused_and_leaves_the_model_alone(tmp_path, kind):
    source = wrapped("llama", kind=kind)
    perturb(source)
    source.save_pretrained(tmp_path / "adapter")
    model = build("llama")
    before, names = logits(model, "llama"), [name for name, _ in model.named_modules()]
    with pytest.raises(AdapterError, match=r"LlamaForCausalLM.load_adapter, .*use peft\.PeftModel\.from_pretrained"):
        model.load_adapter(str(tmp_path / "adapter"))
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(logits(model, "llama"), before)
    loaded = PeftModel.from_pretrained(model, tmp_path / "adapter")
    assert torch.equal(logits(loaded.eval(), "llama"), logits(source, "llama"))


def test_a_model_takes_either_rosa_attach_or_peft():
    with pytest.raises(AdapterError, match=r"has rosa attached already; call rosa.merge\(model\) first"):
        get_peft_model(attached("llama", rosa.RosaConfig(rank=4)), RosaConfig())
    model = wrapped("llama")
    with pytest.raises(AdapterError, match=r"has rosa attached already; call model.merge_and_unload\(\)"):
        rosa.attach(model, rosa.RosaConfig(rank=4))
    with pytest.raises(AdapterError, match="was not attached by rosa.attach; .*merge_and_unload"):
        rosa.merge(model)
    rosa.attach(model.merge_and_unload(), rosa.RosaConfig(rank=4), verbose=False)


@pytest.mark.parametrize(
    "tune",
    [
        lambda model, lora: get_peft_model(model, lora),
        lambda model, lora: get_peft_model(model, lora, mixed=True),
        lambda model, lora: model.add_adapter(lora) or model,
        lambda model, lora: peft.inject_adapter_in_model(lora, model),
        lambda model, lora: get_peft_model(model, lora).base_model.model.model.layers[0],
        lambda model, lora: get_peft_model(model, peft.IA3Config(task_type="CAUSAL_LM")),
        lambda model, lora: get_peft_model(model, RosaConfig(r=2)).base_model.model.model.layers[0],
    ],
)
def test_the_matrices_of_pefts_adapters_are_no_layers_to_attach_to(tune):
    model = tune(build("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    before = [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
    with pytest.raises(AdapterError, match=r"_proj has an adapter of PEFT: .*merge_and_unload.*rosa\.peft"):
        rosa.attach(model, rosa.RosaConfig(rank=2, targets=["*"]))
    assert [(name, parameter.requires_grad) for name, parameter in model.named_parameters()] == before


@pytest.mark.parametrize("removed", ["merge_and_unload", "unload"])
def test_a_model_from_which_pefts_adapters_were_removed_can_be_attached_to(removed):
    model = get_peft_model(build("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    plain = rosa.attach(getattr(model, removed)(), rosa.RosaConfig(rank=2), verbose=False)
    assert len(rosa.adapters.attachment(plain).layers) == 8


def test_a_file_of_another_rank_is_refused(tmp_path):
    trained("llama", r=2).save_pretrained(tmp_path)
    model = wrapped("llama", r=1)
    with pytest.raises(AdapterError, match=r"q_proj, adapter 'default': A has shape \(32, 2\), expected .*\(32, 1\)"):
        model.load_adapter(tmp_path, "default")


def test_a_file_with_half_of_a_start_is_refused(tmp_path):
    trained("gpt2", changes=4, r=4).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    start = {
        key.replace("rosa_B", "rosa_start_b"): tensor.clone() for key, tensor in tensors.items() if "rosa_B" in key
    }
    save_file({**tensors, **start}, file)
    with pytest.raises(AdapterError, match="start_a is missing"):
        PeftModel.from_pretrained(build("gpt2"), tmp_path)


@both
def test_adapters_can_be_injected_without_a_peft_model(kind):
    model = build("llama")
    expected = logits(model, "llama")
    torch.manual_seed(0)
    peft.inject_adapter_in_model(config_of(kind, r=2), model)
    assert relative_difference(logits(model, "llama"), expected) <= 1e-5
    change_course(model)
    train_steps(model, "llama", 2)
    state = peft.get_peft_model_state_dict(model)
    other = build("llama")
    peft.inject_adapter_in_model(config_of(kind, r=2), other)
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(logits(other, "llama"), logits(model, "llama"))


def test_a_layer_of_the_tiny_models_is_no_square():
    """Only layers that are not square reveal swapped sides."""
    assert {layer.base_layer.weight.shape for layer in layers(wrapped("llama")).values()} == {
        (HIDDEN, HIDDEN),
        (HIDDEN // 2, HIDDEN),
    }


def test_a_file_that_does_not_fit_robust_adaptation_says_why(tmp_path):
    trained("llama", kind=RobustConfig).save_pretrained(tmp_path)
    for options, message in (
        ({"r": 2}, r"q_proj, adapter 'default': lora_A has shape \(4, 32\), expected \(2, 32\)"),
        ({"density": 0.1}, r"adapter 'default': values has shape \(51,\), expected \(102,\)"),
        ({"schedule": "low_rank_only"}, "adapter 'default': (index|values) is not expected"),
        ({"target_modules": ["q_proj"]}, r"k_proj.*: the file has tensors of a layer that is not adapted"),
    ):
        with pytest.raises(AdapterError, match=message):
            wrapped("llama", kind=RobustConfig, **options).load_adapter(tmp_path, "default")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(key for key in tensors if key.endswith("q_proj.robust_index"))
    index = tensors[name]
    partly = torch.where(index == index[0], -1, index)
    for spoiled, message in ((index.flip(0), "not sorted"), (index + 1024, "below 1024"), (partly, "not sorted")):
        save_file({**tensors, name: spoiled.contiguous()}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(AdapterError, match=f"index does not fit the layer: .*{message}"):
            PeftModel.from_pretrained(build("llama"), tmp_path)


def test_a_support_goes_from_one_door_to_the_other(tmp_path):
    first = attached("llama", method_of(RobustConfig), seed=3)
    support.write(first, tmp_path / "first")
    through = wrapped("llama", kind=RobustConfig, support=str(tmp_path / "first"))
    assert support.content_hash(through) == support.content_hash(first)
    support.write(through, tmp_path / "second")
    assert {one.share for one in support.overlap(tmp_path / "first", tmp_path / "second").values()} == {1.0}
    again = rosa.attach(build("llama"), method_of(RobustConfig, support=str(tmp_path / "second")), verbose=False)
    assert support.content_hash(again) == support.content_hash(first)
    # What was saved needs the file no more.
    through.save_pretrained(tmp_path / "adapter")
    (tmp_path / "first").unlink()
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "adapter", is_trainable=True)
    assert support.content_hash(loaded) == support.content_hash(first)
