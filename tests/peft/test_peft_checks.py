"""The checks that PEFT's own test suite makes of every method, on each of its custom models.

PEFT's wheel holds no tests. The checks are named as in its ``tests/testing_common.py`` and its tests of custom models;
the code is our own. Features that a method may lack (weighted combination, mixed batches, embeddings, convolutions,
multi-head attention) must be refused by name.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import rosa
from rosa.errors import AdapterError
from rosa.peft import RobustConfig, RosaConfig
from rosa.peft.layer import TunerLinear
from tests.adapters.tiny import give_support


class MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.lin0 = nn.Linear(10, 20, bias=bias)
        self.lin1 = nn.Linear(20, 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin1(torch.relu(self.lin0(x))).log_softmax(dim=-1)


class Blocks(nn.Module):
    """Layers in a list, for layers_to_transform."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"lin0": nn.Linear(10, 10)}) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer["lin0"](x))
        return x


class WithConv1D(nn.Module):
    """GPT-2's layer, which stores (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1d = Conv1D(6, 10)
        self.lin0 = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin0(torch.relu(self.conv1d(x)))


class Twice(nn.Module):
    """One layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin0(torch.tanh(self.lin0(x)))


ANY: dict[str, tuple[Callable[[], nn.Module], dict]] = {
    "MLP 1": (MLP, {"target_modules": "lin0"}),
    "MLP 2": (MLP, {"target_modules": ["lin0"]}),
    "MLP 3": (MLP, {"target_modules": ["lin1"]}),
    "MLP 4": (MLP, {"target_modules": ["lin0", "lin1"]}),
    "MLP 5": (MLP, {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    "MLP 6": (MLP, {"target_modules": ["lin0"], "r": 0.3}),
    "MLP 7": (MLP, {"target_modules": "all-linear"}),
    "MLP without bias": (lambda: MLP(bias=False), {"target_modules": ["lin0", "lin1"]}),
    "Blocks": (Blocks, {"target_modules": ["lin0"], "layers_to_transform": [1, 2], "layers_pattern": "layers"}),
    "Blocks, ranks": (Blocks, {"target_modules": ["lin0"], "rank_pattern": {"layers.1.lin0": 3}}),
    "Conv1D 1": (WithConv1D, {"target_modules": ["conv1d"]}),
    "Conv1D 2": (WithConv1D, {"target_modules": ["conv1d", "lin0"]}),
    "called twice": (Twice, {"target_modules": ["lin0"]}),
}
OF_ROSA: dict[str, tuple[Callable[[], nn.Module], dict]] = {
    "top": (MLP, {"target_modules": ["lin0"], "sampling": "top", "split": "symmetric", "every": 0}),
    "random_add": (MLP, {"target_modules": ["lin0"], "factorization": "random_add"}),
    "random_orthogonal": (MLP, {"target_modules": ["lin0"], "factorization": "random_orthogonal"}),
}
OF_ROBUST: dict[str, tuple[Callable[[], nn.Module], dict]] = {
    "sparse_only": (MLP, {"target_modules": ["lin0"], "schedule": "sparse_only"}),
    "low_rank_only": (MLP, {"target_modules": ["lin0"], "schedule": "low_rank_only", "lora_alpha": 4.0}),
    "densities": (Blocks, {"target_modules": ["lin0"], "density_pattern": {"layers.1.lin0": 0.3}}),
}
MODELS = {
    **{f"ROSA, {name}": (RosaConfig, *model) for name, model in {**ANY, **OF_ROSA}.items()},
    **{f"RoSA, {name}": (RobustConfig, *model) for name, model in {**ANY, **OF_ROBUST}.items()},
}
X = torch.linspace(-1, 1, 90).view(9, 10)


class Case:
    """A model and its configuration, and PEFT models made of them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.kind, self.make, self.options = MODELS[name]
        self.folder = folder
        self.base = self.plain()

    def plain(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make()

    def config(self, **changes) -> RosaConfig | RobustConfig:
        own = {"density": 0.1, "lora_alpha": 2.0} if self.kind is RobustConfig else {}
        return self.kind(**{"r": 2, **own, **self.options, **changes})

    @property
    def bias(self) -> str:
        return f"{self.kind.METHOD.NAME}_only"

    def model(self, seed: int = 1, adapter: str = "default", **changes) -> PeftModel:
        plain = self.plain()
        torch.manual_seed(seed)
        return get_peft_model(plain, self.config(**changes), adapter_name=adapter)

    def trained(self, **changes) -> PeftModel:
        return train(self.model(**changes))

    @property
    def expected(self) -> Tensor:
        return run(self.base)


@torch.no_grad()
def run(model: nn.Module) -> Tensor:
    return model(X)


def train(model: PeftModel) -> PeftModel:
    """Updates around a resample, or around the choice of the sparse parts' positions."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in range(4):
        if step == 2:
            change_course(model)
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return model


def change_course(model: PeftModel) -> None:
    """What happens to an adapter in the course of training: a resample, or the choice of positions."""
    if isinstance(model.peft_config[model.active_adapter], RosaConfig):
        rosa.resample(model)
    else:
        give_support(model)


def layers(model: nn.Module) -> list[TunerLinear]:
    return [module for module in model.modules() if isinstance(module, TunerLinear)]


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


CHECKS: dict[str, Callable[[Case], None]] = {}


def check(function: Callable[[Case], None]) -> Callable[[Case], None]:
    CHECKS[function.__name__] = function
    return function


@check
def model_attr(case: Case) -> None:
    model = case.model()
    assert all(hasattr(model, name) for name in ("save_pretrained", "from_pretrained", "push_to_hub"))
    assert model.peft_type == case.kind.METHOD.NAME.upper()


@check
def adapter_name(case: Case) -> None:
    model = case.model(adapter="test-adapter")
    assert {name for layer in layers(model) for name in layer.adapters} == {"test-adapter"}
    assert model.active_adapters == ["test-adapter"]


@check
def prepare_for_training(case: Case) -> None:
    trains = {name for name, p in case.model().named_parameters() if p.requires_grad}
    assert trains
    factors = (".A", ".B", ".lora_A", ".lora_B", ".values")
    assert all(name.endswith(factors) or ".modules_to_save." in name for name in trains)


@check
def initial_output_is_the_base_models(case: Case) -> None:
    assert close(run(case.model()), case.expected)


@check
def load_model_low_cpu_mem_usage(case: Case) -> None:
    model = case.trained()
    model.save_pretrained(case.folder)
    loaded = PeftModel.from_pretrained(case.plain(), case.folder, low_cpu_mem_usage=True)
    assert {p.device.type for p in loaded.parameters()} == {"cpu"}
    assert torch.equal(run(loaded), run(model))
    injected = peft.inject_adapter_in_model(case.config(), case.plain(), low_cpu_mem_usage=True)
    assert {p.device.type for layer in layers(injected) for p in layer.adapters.parameters()} >= {"meta"}


@check
def save_pretrained(case: Case) -> None:
    model = case.trained()
    model.save_pretrained(case.folder)
    assert {one.name for one in case.folder.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    loaded = PeftModel.from_pretrained(case.plain(), case.folder)
    one, other = (peft.get_peft_model_state_dict(each) for each in (model, loaded))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(run(loaded), run(model))


@check
def save_pretrained_pickle(case: Case) -> None:
    model = case.trained()
    model.save_pretrained(case.folder, safe_serialization=False)
    assert (case.folder / "adapter_model.bin").is_file()
    assert torch.equal(run(PeftModel.from_pretrained(case.plain(), case.folder)), run(model))


@check
def save_pretrained_selected_adapters(case: Case) -> None:
    model = case.trained()
    model.add_adapter("new_adapter", case.config())
    model.save_pretrained(case.folder / "all")
    assert (case.folder / "all" / "new_adapter" / "adapter_model.safetensors").is_file()
    model.save_pretrained(case.folder / "one", selected_adapters=["default"])
    assert not (case.folder / "one" / "new_adapter").exists()
    assert torch.equal(run(PeftModel.from_pretrained(case.plain(), case.folder / "one")), run(model))


@check
def from_pretrained_config_construction(case: Case) -> None:
    case.model().save_pretrained(case.folder)
    loaded = PeftModel.from_pretrained(case.plain(), case.folder, is_trainable=True, config=case.config())
    assert isinstance(loaded.peft_config["default"], case.kind)
    assert any(p.requires_grad for p in loaded.parameters())


@check
def load_multiple_adapters(case: Case) -> None:
    model = case.trained()
    model.save_pretrained(case.folder)
    loaded = PeftModel.from_pretrained(case.plain(), case.folder)
    result = loaded.load_adapter(case.folder, adapter_name="other")
    assert result.missing_keys == result.unexpected_keys == []
    loaded.set_adapter("other")
    assert torch.equal(run(loaded), run(model))


@check
def merge_layers(case: Case) -> None:
    model = case.trained()
    expected = run(model)
    assert close(run(copy.deepcopy(model).merge_and_unload()), expected)
    model.merge_adapter()
    assert close(run(model), expected)
    model.unmerge_adapter()
    assert torch.equal(run(model), expected)


@check
def merge_layers_is_idempotent(case: Case) -> None:
    model = case.trained()
    model.merge_adapter()
    once = run(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.merge_adapter()
    assert torch.equal(run(model), once)


@check
def merge_layers_multi(case: Case) -> None:
    model = case.trained()
    first = run(model)
    model.add_adapter("second", case.config())
    model.set_adapter("second")
    train(model)
    second = run(model)
    model.set_adapter("default")
    merged = copy.deepcopy(model).merge_and_unload(adapter_names=["default"])
    assert close(run(merged), first)
    model.set_adapter("second")
    assert close(run(model.merge_and_unload()), second)


@check
def merge_layers_nan(case: Case) -> None:
    model = case.trained()
    with torch.no_grad():
        for factor in layers(model)[0].adapter("default").factors().values():
            factor.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        model.merge_and_unload(safe_merge=True)


@check
def safe_merge(case: Case) -> None:
    model = case.trained()
    expected = run(model)
    assert close(run(model.merge_and_unload(safe_merge=True)), expected)


@check
def merge_layers_bf16(case: Case) -> None:
    plain = case.plain().to(torch.bfloat16)
    model = get_peft_model(plain, case.config())
    with torch.no_grad():
        before = model(X.bfloat16())
        model.merge_adapter()
        assert torch.allclose(model(X.bfloat16()), before, atol=0.1)


@check
def generate_pickles_and_copies(case: Case) -> None:
    model = case.trained()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(twin), run(model))


@check
def training(case: Case) -> None:
    model = case.model()
    model(X).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@check
def only_params_are_updated(case: Case) -> None:
    model = case.model()
    change_course(model)  # without positions a sparse part changes nothing
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model(X).square().mean().backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(run(model), case.expected)


@check
def forward_output_finite(case: Case) -> None:
    assert torch.isfinite(run(case.trained())).all()


@check
def forward_bfloat16(case: Case) -> None:
    model = get_peft_model(case.plain().to(torch.bfloat16), case.config(), autocast_adapter_dtype=False)
    with torch.no_grad():
        assert model(X.bfloat16()).dtype == torch.bfloat16


@check
def delete_adapter(case: Case) -> None:
    model = case.model()
    model.add_adapter("delete_me", case.config())
    model.set_adapter("delete_me")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.delete_adapter("delete_me")
    assert "delete_me" not in model.peft_config
    assert model.active_adapters == ["default"]
    assert all(list(layer.adapters) == ["default"] for layer in layers(model))
    run(model)


@check
def delete_inactive_adapter(case: Case) -> None:
    model = case.trained()
    expected = run(model)
    model.add_adapter("delete_me", case.config())
    model.delete_adapter("delete_me")
    assert model.active_adapters == ["default"]
    assert torch.equal(run(model), expected)


@check
def delete_unknown_adapter_raises(case: Case) -> None:
    with pytest.raises(ValueError, match="Adapter unknown does not exist"):
        case.model().delete_adapter("unknown")


@check
def unload_adapter(case: Case) -> None:
    unloaded = case.trained().unload()
    assert not layers(unloaded)
    assert torch.equal(run(unloaded), case.expected)


@check
def disable_adapter(case: Case) -> None:
    model = case.trained()
    trained = run(model)
    assert not close(trained, case.expected)
    with model.disable_adapter():
        assert torch.equal(run(model), case.expected)
        assert model.get_model_status().enabled is False
    assert torch.equal(run(model), trained)


@check
def disable_adapter_with_bias_warns(case: Case) -> None:
    model = case.model(bias=case.bias)
    with pytest.warns(UserWarning, match="Careful, disabling adapter layers with bias"), model.disable_adapter():
        pass


@check
def adding_multiple_adapters_with_bias_raises(case: Case) -> None:
    model = case.model(bias="all")
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("other", case.config(bias=case.bias))


@check
def weighted_combination_of_adapters_is_refused(case: Case) -> None:
    with pytest.raises(AdapterError, match="add_weighted_adapter"):
        case.model().add_weighted_adapter(["default"], [1.0], "combined")


@check
def mixed_adapter_batches_are_refused(case: Case) -> None:
    with pytest.raises(AdapterError, match="adapter_names"):
        case.model()(X, adapter_names=["default"] * 9)


@check
def set_adapter_keeps_other_parameters_frozen(case: Case) -> None:
    model = case.model()
    model.add_adapter("other", case.config())
    for name in ("other", "default"):
        model.set_adapter(name)
        trains = [key for key, p in model.named_parameters() if p.requires_grad]
        assert trains
        assert all(f".{name}" in key for key in trains)


@check
def add_the_same_adapter_twice_raises(case: Case) -> None:
    with pytest.raises(ValueError, match="already exists"):
        case.model().add_adapter("default", case.config())


@check
def repr_names_the_layers(case: Case) -> None:
    shown = repr(case.model())
    assert layers(case.model())[0].__class__.__name__ in shown
    assert f"{case.kind.METHOD.NAME}_layer" in shown


@check
def low_level_state_dict_round_trip(case: Case) -> None:
    model = peft.inject_adapter_in_model(case.config(), case.plain())
    state = peft.get_peft_model_state_dict(model)
    other = peft.inject_adapter_in_model(case.config(), case.plain(), state_dict=state)
    result = peft.set_peft_model_state_dict(other, state)
    assert result.unexpected_keys == []
    assert torch.equal(run(other), run(model))


@check
def lora_conversion_is_supported(case: Case) -> None:
    model = case.trained()
    assert model.supports_lora_conversion()
    config, state = peft.convert_to_lora(model, rank=1.0)
    assert isinstance(config, peft.LoraConfig)
    assert any("lora_A" in key for key in state)


@pytest.mark.spread
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("asked", CHECKS)
def test_check(name: str, asked: str, tmp_path: Path) -> None:
    CHECKS[asked](Case(name, tmp_path))


@pytest.mark.parametrize(
    "layer",
    [nn.Embedding(4, 4), nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.MultiheadAttention(4, 2), nn.LayerNorm(4)],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
def test_other_layers_are_refused_by_name(layer: nn.Module, kind: type) -> None:
    with pytest.raises(AdapterError, match=f"target is a {type(layer).__name__}, which is not supported"):
        get_peft_model(nn.ModuleDict({"target": layer}), kind(r=1, target_modules=["target"]))
