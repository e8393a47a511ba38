"""The parts of a run: warnings and facts of attaching a method, and their place in the record."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, RobertaForSequenceClassification

from rosa.errors import AdapterError
from rosa.run import build, run
from tests.conftest import Composer


@pytest.fixture
def language_model(tmp_path: Path, tiny_model: Path) -> Path:
    """A masked language model, which has neither a pooler nor a classifier."""
    folder = tmp_path / "language_model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(
        BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id, **shape)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_random_parameters_that_stay_frozen_are_said_aloud_and_recorded(
    language_model: Path, composed: Composer, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = "bert.pooler.dense.weight, bert.pooler.dense.bias, classifier.weight, classifier.bias"
    options = (f"model.path={language_model}", "train.epochs=1", "method=rosa", "method.rank=2")
    with caplog.at_level(logging.WARNING, "rosa"):
        record = run(composed(*options, "method.head=freeze"), "command", progress=False).record
    said = (
        f"method.head=freeze: {drawn} were not in the checkpoint (or were made after it was loaded, as by "
        "resize_token_embeddings), and stay as they were initialized"
    )
    assert said in record["warnings"]
    assert said in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "rosa"):
        record = run(composed(*options, "method.head=[bert.pooler]"), "command", progress=False).record
    assert "were not in the checkpoint" not in caplog.text  # what was drawn trains, whatever is named
    assert record["params"]["head"] == 16 * 16 + 16 + 2 * 16 + 2


@pytest.mark.parametrize(
    ("precision", "dtype", "asked", "used"),
    [
        ("bf16", "float32", "auto", "eager"),
        ("bf16", "bfloat16", "auto", "eager"),
        ("fp32", "float32", "auto", "sdpa"),
        ("bf16", "float32", "sdpa", "sdpa"),
        ("fp32", "float32", "eager", "eager"),
    ],
)
def test_attention_in_bf16_on_a_cpu_goes_around_the_slow_fused_kernel(
    composed: Composer, precision: str, dtype: str, asked: str, used: str
) -> None:
    options = (f"train.precision={precision}", f"model.dtype={dtype}", f"model.attention={asked}")
    config = composed("train.device=cpu", *options)
    parts = build.gather(config, build.read(config))
    assert parts.model_facts["attention"] == used
    batch = parts.collator([parts.train[0], parts.train[1]])
    with torch.profiler.profile() as seen, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        parts.model(**batch).loss.backward()
    fused = [event.key for event in seen.key_averages() if "scaled_dot_product" in event.key]
    assert bool(fused) == (used == "sdpa")


@pytest.mark.quick
def test_a_method_that_changes_the_pretrained_function_is_refused(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that uses its layers' weights without calling the adapters."""
    stock = RobertaForSequenceClassification.forward

    def forward(self: RobertaForSequenceClassification, *arguments: object, **named: object) -> object:
        found = stock(self, *arguments, **named)
        layer = self.roberta.encoder.layer[0].attention.self.query
        found.logits = found.logits + 10 * getattr(layer, "base", layer).weight.sum()
        return found

    monkeypatch.setattr(RobertaForSequenceClassification, "forward", forward)
    with pytest.raises(AdapterError, match="attaching changes an output of RobertaForSequenceClassification"):
        run(composed("method=rosa", "method.rank=8"), "command", progress=False)
