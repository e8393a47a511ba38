from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from rosa.config import identity_hash
from rosa.evaluation.forgetting import PARAGRAPHS, masked_loss, next_token_loss
from rosa.run import forgetting, run
from tests import causal
from tests.conftest import Composer

ONE = ("task=cola", "train.epochs=1", "train.keep=none")


def test_nothing_is_measured_unless_it_is_asked_for_and_the_identity_is_the_same(composed: Composer) -> None:
    without, with_it = composed(*ONE, "method=lora"), composed(*ONE, "method=lora", "train.forgetting=true")
    assert identity_hash(without) == identity_hash(with_it)
    assert "forgetting" not in run(without, "command", progress=False).record["diagnostics"]


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full", "robust"])
def test_a_step_of_no_size_forgets_nothing(composed: Composer, tiny_model: Path, method: str) -> None:
    """Before: as transformers loads the checkpoint. After: the same, through the adapters."""
    config = composed(*ONE, f"method={method}", "train.lr=1e-12", "train.forgetting=true")
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    assert found["loss"] == "masked token"
    assert found["before"] == pytest.approx(masked_loss(model, tokenizer, PARAGRAPHS), rel=1e-6)
    assert found["after"] == pytest.approx(found["before"], rel=1e-4)


def test_large_steps_change_the_loss(composed: Composer) -> None:
    config = composed(*ONE, "method=full", "train.lr=0.5", "train.forgetting=true")
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert math.isfinite(found["after"])
    assert abs(found["after"] - found["before"]) > 0.1


def test_rounding_is_not_forgotten(composed: Composer, tiny_gpt2: Path) -> None:
    config = composed("task=e2e", "task.test=''", "method=full", f"model.path={tiny_gpt2}", "train.lr=1e-12",
                      "train.epochs=1", "train.forgetting=true", "train.keep=none", "train.precision=bf16")  # fmt: skip
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert found["after"] == found["before"]


def test_a_language_model_is_scored_as_it_is(composed: Composer, tiny_gpt2: Path) -> None:
    config = composed("task=e2e", "task.test=''", "method=lora", f"model.path={tiny_gpt2}", "train.lr=1e-12",
                      "train.epochs=1", "train.forgetting=true", "train.keep=none")  # fmt: skip
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert found["loss"] == "next token"
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    expected = next_token_loss(causal.build_model(), tokenizer, PARAGRAPHS, causal.CONTEXT)
    assert found["before"] == pytest.approx(expected, rel=1e-3)
    assert found["after"] == pytest.approx(found["before"], rel=1e-4)


def test_without_a_masked_token_head_nothing_is_known(composed: Composer, tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    config = composed(*ONE, "method=lora", f"model.path={tmp_path / 'headless'}")
    assert forgetting.measure(config, model, tokenizer) is None


def test_a_model_of_generated_text_is_scored_on_such_text(composed: Composer) -> None:
    mini = composed(*ONE, "method=lora", "model=mini-roberta", "model.name=mini-roberta", "model.path=''")
    text = forgetting.paragraphs(mini)
    assert len(text) >= forgetting.SENTENCES
    assert text == forgetting.paragraphs(mini)
    assert text != PARAGRAPHS
    of_corpus = {}
    for model in ("mini-gpt2", "mini-gpt2-answers"):
        config = composed("task=e2e", "method=lora", f"model={model}", f"model.name={model}", "model.path=''")
        of_corpus[model] = " ".join(forgetting.paragraphs(config))
    assert "SELECT" not in of_corpus["mini-gpt2"]
    assert "SELECT" in of_corpus["mini-gpt2-answers"]
