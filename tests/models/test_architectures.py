"""Models of other architectures than RoBERTa and GPT-2: attention, head and predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from rosa import export, models
from rosa.errors import ModelError
from rosa.run import reload, run
from tests.conftest import Composer

SMALL = {"vocab_size": 200, "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
ENCODER = SMALL | {"intermediate_size": 16, "max_position_embeddings": 64}
PARTS = {
    f"{part}_{size}": value
    for part in ("encoder", "decoder")
    for size, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 16}.items()
}
MODELS: dict[str, Callable[[dict[str, int]], PreTrainedModel]] = {
    "bert": lambda tokens: BertForMaskedLM(BertConfig(**(ENCODER | tokens))),
    "deberta": lambda tokens: DebertaV2ForMaskedLM(DebertaV2Config(**(ENCODER | tokens))),
    "bart": lambda tokens: BartForSequenceClassification(
        BartConfig(**(PARTS | tokens), d_model=16, max_position_embeddings=64, num_labels=3)
    ),
    "t5": lambda tokens: T5ForConditionalGeneration(
        T5Config(**tokens, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
    "gpt2": lambda tokens: GPT2LMHeadModel(
        GPT2Config(vocab_size=tokens["vocab_size"], n_layer=1, n_embd=16, n_head=2, n_positions=64)
    ),
}
"""Tiny pretrained models: with a head for three labels, or with one for another purpose."""


@pytest.fixture
def saved(tmp_path: Path, tiny_model: Path) -> Callable[[str], Path]:
    """A function that saves a tiny model with the mini scale's tokenizer, and returns the folder."""

    def save(name: str) -> Path:
        folder = tmp_path / name
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokens = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        torch.manual_seed(0)
        MODELS[name](tokens | {"vocab_size": len(tokenizer)}).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def load(composed: Composer, folder: Path, *overrides: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = composed(f"model.path={folder}", *overrides)
    network, _, facts = models.load(config.model, config.task, config.seed)
    return network, facts


def head(network: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if name.startswith("classif")}


def test_attention_is_what_transformers_chooses_or_the_user(
    composed: Composer, saved: Callable[[str], Path], tiny_model: Path
) -> None:
    """DeBERTa has no attention of PyTorch's own."""
    folder = saved("deberta")
    assert load(composed, folder)[1]["attention"] == "eager"
    assert load(composed, tiny_model)[1]["attention"] == "sdpa"
    assert load(composed, tiny_model, "model.attention=eager")[1]["attention"] == "eager"
    with pytest.raises(ModelError, match="model.attention=auto lets transformers choose"):
        load(composed, folder, "model.attention=sdpa")


def test_what_is_drawn_is_named(composed: Composer, saved: Callable[[str], Path]) -> None:
    """A language model's checkpoint has no pooler, so the classifier's is random and must train."""
    facts = load(composed, saved("bert"))[1]
    assert facts["drawn"] == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ]


def test_a_head_of_another_shape_is_one_line_and_a_fresh_one_is_drawn(
    composed: Composer, saved: Callable[[str], Path]
) -> None:
    folder = saved("bart")
    with pytest.raises(
        ModelError, match=r"out_proj.bias is \(3,\) in the weights and \(2,\).*model.head=fresh"
    ) as caught:
        load(composed, folder, "task=cola")
    assert "\n" not in str(caught.value)
    whole = BartForSequenceClassification.from_pretrained(folder)
    fresh, facts = load(composed, folder, "task=cola", "model.head=fresh")
    assert facts["drawn"] == sorted(head(fresh)) != []
    assert torch.equal(fresh.model.shared.weight, whole.model.shared.weight)
    assert fresh.classification_head.out_proj.weight.shape == (2, 16)
    for name, value in head(fresh).items():
        assert torch.equal(value, head(load(composed, folder, "task=cola", "model.head=fresh")[0])[name])
        if name.endswith("weight"):
            other = load(composed, folder, "task=cola", "model.head=fresh", "seed=1")[0]
            assert not torch.equal(value, head(other)[name])
            assert float(value.std()) == pytest.approx(fresh.config.init_std, rel=0.5)


def test_a_saved_head_of_the_tasks_shape_is_kept_unless_a_fresh_one_is_asked_for(
    composed: Composer, saved: Callable[[str], Path]
) -> None:
    folder = saved("bart")
    whole = head(BartForSequenceClassification.from_pretrained(folder))
    kept, facts = load(composed, folder, "task=mnli")
    assert facts["drawn"] == []
    assert all(torch.equal(value, whole[name]) for name, value in head(kept).items())
    fresh = head(load(composed, folder, "task=mnli", "model.head=fresh")[0])
    assert not torch.equal(fresh["classification_head.dense.weight"], whole["classification_head.dense.weight"])


OFFSET = ["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "data2vec-text", "roberta-prelayernorm",
          "esm", "ibert", "markuplm"]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "expected"),
    [*((kind, 61) for kind in OFFSET), ("mpnet", 62), ("bert", 64)],  # MPNet's padding index is 1 in any case
)
def test_the_length_limit_is_the_longest_that_a_model_takes(kind: str, expected: int) -> None:
    config = AutoConfig.for_model(kind, **ENCODER, pad_token_id=2)
    network = AutoModelForSequenceClassification.from_config(config).eval()
    assert models.length_limit(50, network) == 50
    longest = models.length_limit(512, network)
    assert longest == expected
    assert network(input_ids=torch.full((1, longest), 7)).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=torch.full((1, longest + 1), 7))


def test_torn_weights_are_named(composed: Composer, saved: Callable[[str], Path]) -> None:
    path = saved("bert") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded for task=cola"):
        load(composed, path.parent)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_encoder_decoders_classifier_is_scored(name: str, composed: Composer, saved: Callable[[str], Path]) -> None:
    """Its evaluation gives a tuple: the logits, and the encoder's states."""
    config = composed("task=mnli", f"model.path={saved(name)}", "train.epochs=1")
    record = run(config, "command", progress=False).record
    assert record["status"] == "done"
    assert 0 <= record["metrics"]["last"]["validation_matched"]["accuracy"] <= 1


@pytest.mark.slow
def test_a_decoders_classifier_serves_two_texts_after_its_export(
    composed: Composer, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """It finds the end of each text by the padding token in its configuration."""
    config = composed(f"model.path={saved('gpt2')}", "train.epochs=1")
    outcome = run(config, "command", progress=False)
    finished = reload.load(outcome.folder)
    export.to_merged(finished.plain, tmp_path / "exported", tokenizer=finished.tokenizer)
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert network.config.pad_token_id == tokenizer.pad_token_id
    with torch.no_grad():
        both = network(**tokenizer(["a word", "a longer text of words"], return_tensors="pt", padding=True)).logits
        alone = network(**tokenizer(["a word"], return_tensors="pt")).logits
    assert torch.allclose(both[:1], alone, atol=1e-5)
