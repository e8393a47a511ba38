"""Gradient checkpointing of models whose inputs are not token ids changes no factor's gradient."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from rosa.adapters import attach, merge
from rosa.adapters.checkpointing import WithGradient
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import METHODS, build, inputs, perturb, relative_difference

TWO_LAYERS = {"num_hidden_layers": 2}
IMAGE = {**tiny.IMAGE, **TWO_LAYERS}
PIXELS = inputs(2, 3, 8, 8)
TOKENS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0))


def _vit() -> tuple[PreTrainedModel, dict[str, Any]]:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = ViTForImageClassification(ViTConfig(**IMAGE, **dropout))
    return model, {"pixel_values": PIXELS, "labels": torch.tensor([0, 1])}


def _whisper() -> tuple[PreTrainedModel, dict[str, Any]]:
    shape: dict[str, Any] = {
        **tiny.WHISPER, "encoder_layers": 2, "decoder_layers": 2, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 1, "begin_suppress_tokens": None, "dropout": 0.0,
    }  # fmt: skip
    model = WhisperForConditionalGeneration(WhisperConfig(**shape))
    return model, {"input_features": inputs(2, 8, 20), "labels": TOKENS}


def _clip() -> tuple[PreTrainedModel, dict[str, Any]]:
    text = {**tiny.TOWER, **TWO_LAYERS, "vocab_size": 40, "bos_token_id": 0, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=IMAGE))
    return model, {"input_ids": TOKENS, "pixel_values": PIXELS, "return_loss": True}


def _bert() -> tuple[PreTrainedModel, dict[str, Any]]:
    return build("bert"), tiny.batch("bert")


MODELS: dict[str, Callable[[], tuple[PreTrainedModel, dict[str, Any]]]] = {
    "vit": _vit,
    "whisper": _whisper,
    "clip": _clip,
    "bert": _bert,
}


def checkpointed(model: PreTrainedModel, reentrant: bool) -> None:
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})


def gradients(name: str, method: str, reentrant: bool | None, first: str = "attach") -> dict[str, Tensor | None]:
    """The gradient of each trainable parameter; ``reentrant=None`` is without checkpointing."""
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    model.train()
    if reentrant is not None and first == "checkpointing":
        checkpointed(model, reentrant)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    if reentrant is not None and first == "attach":
        checkpointed(model, reentrant)
    perturb(model)
    model(**batch).loss.backward()
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.spread
@pytest.mark.parametrize("first", ["attach", "checkpointing"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    ("name", "method"), [*((name, "rosa") for name in MODELS), ("vit", "lora"), ("vit", "ia3-inputs")]
)
def test_every_gradient_is_that_without_checkpointing(name: str, method: str, reentrant: bool, first: str) -> None:
    expected = gradients(name, method, None)
    actual = gradients(name, method, reentrant, first)
    assert [key for key, gradient in actual.items() if gradient is None] == []
    for key, gradient in expected.items():
        assert gradient is not None
        if float(gradient.abs().max()) > 1e-6:
            assert relative_difference(actual[key], gradient) < 1e-4, key


def test_a_block_gets_its_own_inputs_of_which_the_first_number_has_a_gradient() -> None:
    integers, x, y = torch.arange(3), inputs(2, 3), inputs(2, 3, seed=2)

    def block(*given: Any, **options: Any) -> Any:
        return given, options

    function = WithGradient(functools.partial(lambda block, *given, **options: block(*given, **options)))
    given, options = function(block, "a word", integers, x, y, None, flag=True)
    assert (given[0], given[4], len(given), options) == ("a word", None, 5, {"flag": True})
    for one, expected in zip(given[1:4], (integers, x, y), strict=True):
        assert torch.equal(one, expected)
    assert [one.requires_grad for one in given[1:4]] == [False, True, False]
    assert not x.requires_grad, "it is the caller's"
    y.requires_grad_()
    assert function(block, integers, x, y)[0] == (integers, x, y)  # has a gradient, so these are the very tensors


def test_merging_leaves_no_trace_and_copies_work() -> None:
    torch.manual_seed(0)
    model, batch = _vit()
    checkpointed(model.train(), reentrant=True)
    before = {name: vars(module).get("_gradient_checkpointing_func") for name, module in model.named_modules()}
    attach(model, METHODS["rosa"](), verbose=False)
    model(**batch).loss.backward()
    assert any(isinstance(vars(m).get("_gradient_checkpointing_func"), WithGradient) for m in model.modules())
    for each in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
        merge(each)
        assert not any(module._forward_pre_hooks for module in each.modules())
        functions = [vars(module).get("_gradient_checkpointing_func") for module in each.modules()]
        assert not any(isinstance(function, WithGradient) for function in functions)
    after = {name: vars(module).get("_gradient_checkpointing_func") for name, module in model.named_modules()}
    assert after == before
