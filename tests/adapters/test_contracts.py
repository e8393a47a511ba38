"""Contracts of every method: merging, copying, pickling and loading, in any precision and under any wrapper."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rosa.adapters import adapters, attach, attachment, merge, resample
from rosa.adapters.base import Adapter
from rosa.config import RosaConfig
from rosa.errors import AdapterError, FactorizationError
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import METHODS, attached, build, logits, perturb, relative_difference, train_steps

MODELS = ["roberta", "gpt2"]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# --- autocast, TF32 and other contexts -------------------------------------------------------------------------------


@contextlib.contextmanager
def low_precision_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "low-precision": low_precision_products,
    "grad": torch.enable_grad,
}


@pytest.mark.spread
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_merging_gives_the_same_bits_whatever_surrounds_it(name: str, method: str, around: str) -> None:
    one, other = (attached(name, METHODS[method]()) for _ in range(2))
    for model in (one, other):
        perturb(model)
    with AROUND[around]():
        merge(one)
    assert_same(state_of(one), state_of(merge(other)))


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("factorization", ["svd_equal", "svd_add", "random_add", "random_orthogonal"])
def test_resampling_gives_the_same_bits_whatever_surrounds_it(factorization: str, around: str) -> None:
    one, other = (attached("roberta", RosaConfig(rank=4, factorization=factorization)) for _ in range(2))
    for model in (one, other):
        perturb(model)
    with AROUND[around]():
        resample(one, generator=generator(0, "resample"))
    resample(other, generator=generator(0, "resample"))
    assert_same(state_of(one), state_of(other))


# --- narrow backbones ------------------------------------------------------------------------------------------------


def narrow(name: str, dtype: torch.dtype) -> nn.Module:
    """A tiny model in this dtype, in which a tenth of all weights are 0, as pruning leaves them."""
    model = build(name)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand(parameter.shape, generator=stream) < 0.1] = 0
    return model.to(dtype)


@pytest.mark.spread
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_attaching_and_merging_a_narrow_model_returns_the_very_bits(name: str, method: str, dtype: torch.dtype) -> None:
    model = narrow(name, dtype)
    before = state_of(model)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    tiny.give_support(model)
    if method == "rosa":
        for step in range(20):
            resample(model, generator=generator(0, "resample", step))
    assert_same(state_of(merge(model)), before)


@pytest.mark.parametrize("factorization", ["svd_equal", "random_add", "random_orthogonal"])
def test_what_training_adds_to_a_narrow_weight_is_not_rounded_away(factorization: str) -> None:
    """Forty subspaces each change a weight by a hundredth of bfloat16's spacing; the merged weight has their sum."""
    model = narrow("gpt2", torch.bfloat16)
    attach(model, RosaConfig(rank=4, factorization=factorization), generator=generator(0, "adapter"), verbose=False)
    adapter = next(adapter for _, adapter in adapters(model))
    start = adapter.effective_weight().detach().clone()
    added = torch.zeros_like(start)
    for step in range(40):
        before = adapter.effective_weight().detach()
        with torch.no_grad():
            adapter.A += 1e-5 * torch.randn(adapter.A.shape, generator=generator(0, "noise", step))
            adapter.B += 1e-5 * torch.randn(adapter.B.shape, generator=generator(1, "noise", step))
        added += adapter.effective_weight().detach() - before
        resample(model, generator=generator(0, "resample", step))
    change = adapter.effective_weight().detach() - start
    assert float(added.abs().max()) < 0.2 * 2.0**-8 * float(start.abs().max())  # small, or the test shows nothing
    # A step of the byte that is kept, for each of the forty at worst and in a random walk by rule.
    assert float((change - added).norm()) <= 40**0.5 * 2.0**-16 * float(start.norm())


@pytest.mark.spread
@pytest.mark.parametrize("method", ["rosa", "lora", "robust", "ia3", "ia3-inputs"])
@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_a_float64_model_stays_one(name: str, method: str) -> None:
    model = build(name).double()
    expected = logits(model, name)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    tiny.give_support(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert relative_difference(logits(model, name), expected) <= 1e-13
    train_steps(model, name, steps=2)
    if method == "rosa":
        resample(model, generator=generator(0, "resample"))
    trained = logits(model, name)
    assert relative_difference(trained, expected) > 1e-3
    assert relative_difference(logits(merge(model), name), trained) <= 1e-13


# --- another default device -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "rosa-window", "rosa-orthogonal", "rosa-add"])
def test_what_is_drawn_does_not_depend_on_the_default_device(method: str) -> None:
    """A script may call ``torch.set_default_device("cuda")``; here it is meta, whose tensors have no values."""
    options = {"window": {"sampling": "window"}}
    options |= {name: {"factorization": f"random_{name}"} for name in ("orthogonal", "add")}
    variant = method.removeprefix("rosa-")
    config = RosaConfig(rank=4, **options[variant]) if variant in options else METHODS[method]()

    def state() -> dict[str, Tensor]:
        model = build("gpt2")
        attach(model, config, generator=generator(0, "adapter"), verbose=False)
        if config.name == "rosa":
            resample(model, generator=generator(0, "resample"))
        return state_of(model)

    expected = state()
    with torch.device("meta"):
        actual = state()
    assert_same(actual, expected)


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full"])
def test_a_generator_of_another_device_is_refused(method: str) -> None:
    model = build("roberta")
    before = state_of(model)
    elsewhere = Mock(spec=torch.Generator, device=torch.device("cuda:0"))
    with pytest.raises(AdapterError, match=r"generator is on cuda:0: expected a CPU generator"):
        attach(model, METHODS[method](), generator=elsewhere, verbose=False)
    assert_same(state_of(model), before)
    if method == "rosa":
        attach(model, METHODS[method](), verbose=False)
        with pytest.raises(AdapterError, match="generator is on cuda:0"):
            resample(model, generator=elsewhere)


# --- copies ----------------------------------------------------------------------------------------------------------


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(model: nn.Module, assign: bool) -> nn.Module:
    """Load the state into a model with another subspace, other factors and other frozen weights."""
    name = "gpt2" if "GPT2" in type(model).__name__ else "roberta"
    present = attachment(model)
    config = present.config if present else None
    other = attached(name, config, seed=1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    other.load_state_dict(state, assign=assign)
    other.tie_weights()  # which assigning parts, as PyTorch does it
    return other


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "save": saved,
    "load": lambda model: loaded(model, assign=False),
    "assign": lambda model: loaded(model, assign=True),
}


@pytest.mark.spread
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_the_model_and_merges_to_the_same_bits(name: str, method: str, dtype: torch.dtype, way: str) -> None:
    if way in ("load", "assign") and dtype != torch.float32:
        pytest.skip("the tiny model that it is loaded into is float32")
    model = build(name).to(dtype)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    tiny.give_support(model)
    perturb(model)
    if method == "rosa":
        resample(model, generator=generator(0, "resample"))
    perturb(model, seed=1)
    before = state_of(model)
    duplicate = COPIES[way](model)
    assert_same(state_of(duplicate), before)
    perturb(duplicate, seed=2)
    assert_same(state_of(model), before)  # the copy is independent
    perturb(model, seed=2)
    if method == "rosa":
        for each in (model, duplicate):
            resample(each, generator=generator(1, "resample"))
    expected = state_of(merge(model))
    assert_same(state_of(merge(duplicate)), expected)
    assert attachment(duplicate) is None


# --- wrappers --------------------------------------------------------------------------------------------------------

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
}


@pytest.mark.spread
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", METHODS)
def test_merging_a_wrapper_merges_the_model_in_it(method: str, wrapper: str) -> None:
    model = build("roberta").bfloat16()
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    attach(model, METHODS[method](), verbose=False)
    perturb(model)
    wrapped = WRAPPERS[wrapper](model)
    assert attachment(wrapped) == attachment(model)
    assert merge(wrapped) is wrapped
    inner = next(module for module in wrapped.modules() if type(module) is type(model))
    assert attachment(wrapped) is None
    assert not any(isinstance(module, Adapter) for module in wrapped.modules())
    assert {name: parameter.dtype for name, parameter in inner.named_parameters()} == dtypes
    assert_same(state_of(inner), state_of(merge(model)))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_merged_under_inference_mode_can_train_again(method: str) -> None:
    model = build("roberta").bfloat16()
    attach(model, METHODS[method](), verbose=False)
    tiny.give_support(model)
    with torch.inference_mode():
        merge(model)
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    train_steps(model.requires_grad_(True), "roberta", steps=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_head_that_was_replaced_does_not_stop_the_merging(method: str) -> None:
    model = build("roberta").bfloat16()
    attach(model, METHODS[method](), verbose=False)
    model.classifier = nn.Identity()
    merge(model)
    assert attachment(model) is None
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_refused_resample_moves_no_layer_and_clears_no_state() -> None:
    model = attached("roberta", RosaConfig(rank=4))
    optimizer = train_steps(model, "roberta")
    last = list(adapters(model))[-1][1]
    with torch.no_grad():
        last.base.weight[0, 0] = float("inf")
    before = state_of(model)
    states = {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
    with pytest.raises(FactorizationError, match="not finite"):
        resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert_same(state_of(model), before)
    assert optimizer.state.keys() == states.keys()
    for parameter, state in states.items():
        assert all(torch.equal(value, optimizer.state[parameter][key]) for key, value in state.items())
