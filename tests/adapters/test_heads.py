"""Parameters that train beside the factors: the task's head, and all that were missing from the checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipForImageClassification,
    T5Config,
    T5ForQuestionAnswering,
    WhisperConfig,
    WhisperForAudioClassification,
)

from rosa.adapters import attach, attachment, head_names
from rosa.config import ConfigError, IA3Config, LoraConfig, MethodConfig, RosaConfig
from rosa.errors import AdapterError
from tests.adapters import tiny
from tests.adapters.tiny import IMAGE, TOWER, WHISPER, build

TEXT = {**TOWER, "vocab_size": 40}

ELSEWHERE: dict[str, tuple[Callable[[], PreTrainedModel], set[str]]] = {
    "clip": (lambda: CLIPForImageClassification(CLIPConfig(text_config=TEXT, vision_config=IMAGE)), {"classifier"}),
    "siglip": (
        lambda: SiglipForImageClassification(SiglipConfig(text_config=TEXT, vision_config=IMAGE)),
        {"classifier"},
    ),
    "whisper": (lambda: WhisperForAudioClassification(WhisperConfig(**WHISPER)), {"projector", "classifier"}),
    "t5": (
        lambda: T5ForQuestionAnswering(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        {"qa_outputs"},
    ),
}


def saved_language_model(folder: Path) -> Path:
    """A masked language model's checkpoint, which has no pooler and no classifier."""
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**tiny.ENCODER)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ELSEWHERE)
def test_heads_of_models_whose_backbone_has_no_attribute(name: str) -> None:
    make, expected = ELSEWHERE[name]
    model = make()
    assert {parameter.split(".")[0] for parameter in head_names(model)} == expected
    attach(model, LoraConfig(rank=2), verbose=False)
    inside = {n for n, p in model.named_parameters() if p.requires_grad and n.split(".")[0] in expected}
    assert inside == {n for n, _ in model.named_parameters() if n.split(".")[0] in expected}


@pytest.mark.parametrize("config", [RosaConfig, LoraConfig])
def test_what_the_loader_drew_anew_trains(config: Any, tmp_path: Path) -> None:
    model, report = BertForSequenceClassification.from_pretrained(
        saved_language_model(tmp_path), num_labels=3, output_loading_info=True
    )
    drawn = {f"bert.pooler.dense.{tensor}" for tensor in ("weight", "bias")}
    drawn |= {f"classifier.{tensor}" for tensor in ("weight", "bias")}
    assert set(report["missing_keys"]) == drawn
    attach(model, config(rank=2, targets=["*"]), verbose=False)
    assert set(attachment(model).head) == drawn
    plain = {
        n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n and n[-2:] not in (".A", ".B")
    }
    assert plain == drawn


def test_a_random_head_that_stays_frozen_is_announced_by_name(tmp_path: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(saved_language_model(tmp_path), num_labels=3)
    with pytest.warns(
        UserWarning, match=r"head=freeze: bert\.pooler\.dense\.weight, .*classifier\.bias were not in"
    ) as found:
        attach(model, RosaConfig(rank=2, head="freeze"), verbose=False)
    assert found[0].filename == __file__, "the warning is about the call of attach"
    model.save_pretrained(tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(build("roberta"), RosaConfig(rank=2, head="freeze"), verbose=False)


def test_an_output_layer_is_no_head_unless_asked_for() -> None:
    model = build("llama").bfloat16()
    attach(model, RosaConfig(rank=2, targets=["*"]), verbose=False)
    assert attachment(model).head == ()
    assert "lm_head" not in {layer.name for layer in attachment(model).layers}
    assert model.lm_head.weight.dtype == torch.bfloat16
    tokens = tiny.batch("llama")["input_ids"]
    assert model.generate(tokens, max_new_tokens=2, do_sample=False, pad_token_id=0).shape == (4, 9)
    asked = build("llama")
    attach(asked, RosaConfig(rank=2, head=["lm_head"]), verbose=False)
    assert attachment(asked).head == ("lm_head.weight",)
    assert asked.lm_head.weight.requires_grad


def resized(folder: Path) -> PreTrainedModel:
    """A loaded language model whose output layer was replaced by a larger one with the loaded weights."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    GPT2LMHeadModel(config).save_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    model.resize_token_embeddings(42, mean_resizing=False)
    return model


@pytest.mark.parametrize("config", [RosaConfig(rank=2), LoraConfig(rank=2, head=["ln_f"])], ids=lambda c: c.name)
def test_an_output_layer_that_trains_unasked_is_announced_with_its_size(config: MethodConfig, tmp_path: Path) -> None:
    model = resized(tmp_path)
    with pytest.warns(
        UserWarning, match=r"lm_head\.weight: the output layer .* trains whole \(336 parameters\)"
    ) as found:
        attach(model, config, verbose=False)
    assert found[0].filename == __file__
    assert "lm_head.weight" in attachment(model).head


@pytest.mark.parametrize("config", [RosaConfig(rank=2, head=["lm_head"]), IA3Config(head=["lm_*"])], ids=str)
def test_an_output_layer_that_was_asked_for_is_not_announced(config: MethodConfig, tmp_path: Path) -> None:
    model = resized(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(model, config, verbose=False)
    assert "lm_head.weight" in attachment(model).head


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "gpt2",
            {"head": ["lm_head"]},
            r"method\.head: 'lm_head': lm_head\.weight is tied to transformer\.wte\.weight",
        ),
        ("roberta", {"head": ["clasifier"]}, "method.head: 'clasifier' matches nothing in .*: roberta, classifier"),
        ("bert", {"head": ["pooler"], "targets": ["*"]}, r"bert\.pooler\.dense\.weight is in both method\.head and"),
        ("roberta", {"head": ["*query.bias"]}, r"layer\.0\.attention\.self\.query\.bias is in both method\.head and"),
        ("gpt2", {"targets": ["lm_head"]}, r"match none.*lm_head\.weight is tied to transformer\.wte\.weight"),
    ],
)
def test_names_that_cannot_be_a_head_are_refused(name: str, options: Any, said: str) -> None:
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(AdapterError, match=said):
        attach(model, RosaConfig(rank=2, **options), verbose=False)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("config", [LoraConfig(rank=2, head=["*key.bias"]), IA3Config(head=["*key.bias"])])
def test_a_bias_of_an_adapted_layer_is_no_head(config: MethodConfig) -> None:
    model = build("roberta")
    with pytest.raises(AdapterError, match=r"layer\.0\.attention\.self\.key\.bias is in both method\.head and"):
        attach(model, config, verbose=False)
    assert attachment(model) is None
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("head", ["Train", [], [""], [3]])
def test_another_value_for_the_head_is_refused(head: Any) -> None:
    with pytest.raises(ConfigError, match=r"method\.head="):
        RosaConfig(head=head)
