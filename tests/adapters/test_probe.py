"""Running an example detects weights that the model uses without calling their layer."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.adapters import attach, attachment
from rosa.adapters.linalg import precision
from rosa.adapters.probe import Probe
from rosa.config import IA3Config, LoraConfig, MethodConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import METHODS, build, inputs

X = inputs(4, 12)


class Held(nn.Module):
    """Calls a layer, or uses a reference to its weight taken at construction, or reads ``.data`` at each call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.used = nn.Linear(12, 12)
        self.attention.layer = nn.Linear(12, 12)
        self.how = how
        self.held = [self.attention.layer.weight]

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention.used(x)
        if self.how == "called":
            return self.attention.layer(x)
        return functional.linear(x, self.held[0] if self.how == "held" else self.attention.layer.weight.data)


def probed(how: str, config: MethodConfig) -> tuple[nn.Module, list[str]]:
    """The model with the method attached, and the warnings."""
    torch.manual_seed(0)
    model = Held(how).train()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attach(model, config, generator=generator(0, "adapter"), verbose=False, example={"x": X})
    return model, [str(each.message) for each in caught]


def test_a_weight_that_was_held_before_is_refused_and_everything_is_as_it_was() -> None:
    torch.manual_seed(0)
    model = Held("held")
    model.attention.used.bias.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    expected = model(X)
    with pytest.raises(AdapterError, match=r"attaching changes an output of Held by \S+ % for the example"):
        attach(model, RosaConfig(rank=4), verbose=False, example={"x": X})
    assert attachment(model) is None
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert torch.allclose(model(X), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("how", "config"),
    [("held", LoraConfig(rank=2)), ("data", RosaConfig(rank=2)), ("data", LoraConfig(rank=2))],
    ids=["held-lora", "data-rosa", "data-lora"],
)
def test_layers_on_which_no_output_depends_are_named(how: str, config: MethodConfig) -> None:
    _, said = probed(how, config)
    assert len(said) == 1
    assert "depends on 1 of the adapted layers, so they may never train: attention.layer" in said[0]


@pytest.mark.parametrize("config", [RosaConfig(rank=2), LoraConfig(rank=2)], ids=["rosa", "lora"])
def test_layers_that_are_called_pass_and_keep_their_modes(config: MethodConfig) -> None:
    model, said = probed("called", config)
    assert said == []
    assert all(module.training for module in model.modules())


def test_a_factorization_that_changes_the_function_is_let_through() -> None:
    model, said = probed("called", RosaConfig(rank=2, factorization="svd_add"))
    assert said == []
    assert attachment(model) is not None


class Gain(nn.Module):
    """Multiplies its input by one number; the second output is 0 however large it is."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, dtype=dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.gain, x * self.gain * 0


@pytest.mark.parametrize(
    ("dtype", "change", "said"),
    [
        *[(torch.float32, 0.008, ""), (torch.float32, 0.012, "1.2 %"), (torch.float32, -0.012, "1.2 %")],
        *[(torch.bfloat16, 0.03125, ""), (torch.bfloat16, 0.0625, "6.2 %"), (torch.float32, float("nan"), "nan %")],
    ],
)
def test_an_output_may_change_by_a_hundredth_and_by_a_twentieth_in_a_narrow_dtype(
    dtype: torch.dtype, change: float, said: str
) -> None:
    model = Gain(dtype)
    probe = Probe(model, {"x": X})
    with torch.no_grad():
        model.gain += change
    message = f"attaching changes an output of Gain by {said} for the example"
    with pytest.raises(AdapterError, match=message) if said else nullcontext():
        probe.require_same(model)


@pytest.mark.parametrize(("count", "rest"), [(5, ""), (6, " and 1 more"), (7, " and 2 more")])
def test_of_many_layers_on_which_no_output_depends_the_first_five_are_named(count: int, rest: str) -> None:
    model = nn.Module()
    model.attention = nn.ModuleList(nn.Linear(12, 12) for _ in range(count))
    model.forward = lambda x: x
    with pytest.warns(UserWarning, match=f"no output of Module for the example depends on {count} of") as caught:
        attach(model, LoraConfig(rank=2, targets=["*attention*"]), verbose=False, example={"x": X})
    names = ", ".join(f"attention.{number}" for number in range(5))
    assert str(caught[0].message).endswith(f"may never train: {names}{rest}")
    assert caught[0].filename == __file__, "the warning is about the call of attach"


@pytest.mark.spread
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_real_architectures_pass(name: str, method: str, dtype: torch.dtype) -> None:
    batch: dict[str, Any] = tiny.batch(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(build(name).to(dtype), METHODS[method](), verbose=False, example=batch)


def test_no_number_of_the_global_stream_is_drawn() -> None:
    model, batch = build("bert"), tiny.batch("bert")
    torch.manual_seed(0)
    attach(model, IA3Config(), verbose=False, example=batch)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), drawn)


class ByKeyword(nn.Module):
    """Calls its layer by the name of the argument, which an adapter does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(input=x)


def test_an_adapted_model_that_fails_on_the_example_is_given_back() -> None:
    model = ByKeyword()
    expected = model(X)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        attach(model, LoraConfig(rank=2), verbose=False, example={"x": X})
    assert attachment(model) is None
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model(X), expected)


def test_an_example_that_is_no_keyword_arguments_is_refused() -> None:
    with pytest.raises(AdapterError, match="example of Tensor: expected the keyword arguments"):
        attach(Held("called"), LoraConfig(rank=2), verbose=False, example=X)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("example", "has"),
    [
        ({"foo": X}, "foo (TypeError: .*unexpected keyword argument 'foo'"),
        ({"x": X, "y": X}, "x, y (TypeError: "),
        ({"x": inputs(4, 5)}, "x (RuntimeError: mat1 and mat2 shapes"),
        ({"x": [1.0]}, "x (TypeError: "),
        ({}, "nothing (TypeError: "),
    ],
)
def test_an_example_on_which_the_model_fails_is_refused_by_its_names(example: dict[str, Any], has: str) -> None:
    model = Held("called")
    model.attention.used.bias.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    said = rf"^Held fails on example, which has {has.replace('(', '[(]')}.*: expected the keyword arguments"
    with pytest.raises(AdapterError, match=said) as caught:
        attach(model, LoraConfig(rank=2), verbose=False, example=example)
    assert isinstance(caught.value.__cause__, (TypeError, RuntimeError)), "the model's own"
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def test_memory_that_is_not_enough_says_nothing_about_the_example() -> None:
    model = nn.Sequential()
    model.attention = nn.Linear(12, 12)
    model.forward = lambda x: torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        attach(model, LoraConfig(rank=2), verbose=False, example={"x": X})


def test_outputs_are_compared_where_their_device_has_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apple's GPUs: they are moved to the CPU first."""
    monkeypatch.setattr(precision, "has_float64", lambda _: False)
    moved, double = [], torch.Tensor.double
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(id(tensor)) or tensor)

    def after_a_move(tensor: Tensor) -> Tensor:
        assert id(tensor) in moved
        return double(tensor)

    model = Gain(torch.float32)
    probe = Probe(model, {"x": X})
    monkeypatch.setattr(torch.Tensor, "double", after_a_move)
    probe.require_same(model)
    assert moved
