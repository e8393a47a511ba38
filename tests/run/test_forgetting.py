from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    T5Config,
    T5ForSequenceClassification,
)

from rosa.config import identity_hash
from rosa.evaluation.forgetting import FIRST, LONGEST, PARAGRAPHS, STEP, masked_loss, next_token_loss
from rosa.run import forgetting, reload, run, untrained
from rosa.training import costs
from tests import causal
from tests.conftest import Composer

ONE = ("task=cola", "train.epochs=1", "train.keep=none")


def test_every_run_measures_it_unless_it_is_told_not_to_and_the_identity_is_the_same(composed: Composer) -> None:
    without, with_it = composed(*ONE, "method=lora", "train.forgetting=false"), composed(*ONE, "method=lora")
    assert identity_hash(without) == identity_hash(with_it)
    found = run(without, "command", progress=False).record["diagnostics"]
    assert "forgetting" not in found
    assert found["forgetting_missing"] == "train.forgetting=false"
    again = dataclasses.replace(with_it, train=dataclasses.replace(with_it.train, force=True))
    found = run(again, "command", progress=False).record["diagnostics"]
    assert found["forgetting"]["loss"] == "masked token"
    assert "forgetting_missing" not in found


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full", "robust"])
def test_a_step_of_no_size_forgets_nothing(composed: Composer, tiny_model: Path, method: str) -> None:
    """Before: as transformers loads the checkpoint. After: the same, through the adapters."""
    config = composed(*ONE, f"method={method}", "train.lr=1e-12")
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    assert found["loss"] == "masked token"
    assert found["before"] == pytest.approx(masked_loss(model, tokenizer, PARAGRAPHS), rel=1e-6)
    assert found["after"] == pytest.approx(found["before"], rel=1e-4)


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full"])
def test_the_loss_after_training_is_that_of_transformers_own_labels(
    composed: Composer, tiny_model: Path, method: str
) -> None:
    """The run's weights, merged into a plain model, under the checkpoint's head."""
    done = run(composed(*ONE[:2], f"method={method}", "train.keep=last", "train.lr=3e-2"), "command", progress=False)
    tokenizer, whole = AutoTokenizer.from_pretrained(tiny_model), AutoModelForMaskedLM.from_pretrained(tiny_model)
    whole.roberta = reload.load(done.folder, "last").plain.roberta
    batch = tokenizer(list(PARAGRAPHS), padding=True, return_tensors="pt", return_special_tokens_mask=True,
                      truncation=True, max_length=LONGEST)  # fmt: skip
    chosen = (torch.arange(batch["input_ids"].shape[1]) % STEP == FIRST) & (batch.pop("special_tokens_mask") == 0)
    labels = batch["input_ids"].masked_fill(~chosen, -100)
    batch["input_ids"] = batch["input_ids"].masked_fill(chosen, tokenizer.mask_token_id)
    with torch.no_grad():
        expected = float(whole.eval()(**batch, labels=labels).loss)
    found = done.record["diagnostics"]["forgetting"]
    assert found["after"] == pytest.approx(expected, rel=1e-5)
    assert found["after"] != pytest.approx(found["before"], rel=1e-4)


def test_large_steps_change_the_loss(composed: Composer) -> None:
    config = composed(*ONE, "method=full", "train.lr=0.5")
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert math.isfinite(found["after"])
    assert abs(found["after"] - found["before"]) > 0.1


def test_rounding_is_not_forgotten(composed: Composer, tiny_gpt2: Path) -> None:
    config = composed("task=e2e", "task.test=''", "method=full", f"model.path={tiny_gpt2}", "train.lr=1e-12",
                      "train.epochs=1", "train.keep=none", "train.precision=bf16")  # fmt: skip
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert found["after"] == found["before"]


def test_a_language_model_is_scored_as_it_is(composed: Composer, tiny_gpt2: Path) -> None:
    config = composed("task=e2e", "task.test=''", "method=lora", f"model.path={tiny_gpt2}", "train.lr=1e-12",
                      "train.epochs=1", "train.keep=none")  # fmt: skip
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert found["loss"] == "next token"
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    expected = next_token_loss(causal.build_model(), tokenizer, PARAGRAPHS, causal.CONTEXT)
    assert found["before"] == pytest.approx(expected, rel=1e-3)
    assert found["after"] == pytest.approx(found["before"], rel=1e-4)


@pytest.mark.parametrize("method", ["rosa", "lora", "full"])
def test_the_pretrained_model_is_loaded_once_more_and_not_twice(
    composed: Composer, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    loaded = []
    load = PreTrainedModel.from_pretrained.__func__

    def counted(kind: Any, *arguments: Any, **options: Any) -> Any:
        loaded.append(kind.__name__)
        return load(kind, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
    run(composed(*ONE, f"method={method}"), "command", progress=False)
    assert loaded == ["RobertaForSequenceClassification", "RobertaForMaskedLM"]
    del loaded[:]
    config = composed("task=e2e", "task.test=''", f"method={method}", f"model.path={tiny_gpt2}", *ONE[1:])
    run(config, "command", progress=False)
    assert loaded == ["GPT2LMHeadModel"] * 2


def test_the_layers_changes_are_those_to_the_classifier_as_it_was(composed: Composer) -> None:
    """They do not depend on the head of the model that is loaded for comparison."""
    found = []
    for asked in ("true", "false"):
        config = composed(*ONE, "method=rosa", f"train.forgetting={asked}", "train.force=true")
        found.append(run(config, "command", progress=False).record["diagnostics"]["layers"])
    assert found[0] == found[1]
    assert all(layer["norm"] > 0 for layer in found[0])


def test_it_is_measured_when_the_costs_have_been_taken(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for module, name in ((costs, "peak_memory"), (costs, "checkpoint_bytes"), (untrained, "with_its_head")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real, name=name: [order.append(name), real(*given)][1])
    monkeypatch.setattr(costs.CostMeter, "summary", lambda meter, real=costs.CostMeter.summary: [
        order.append("times"), real(meter)][1])  # fmt: skip
    run(composed(*ONE, "method=lora"), "command", progress=False)
    assert order == ["times", "peak_memory", "checkpoint_bytes", "with_its_head"]


def test_a_compiled_model_is_not_compiled_for_the_text(tiny_gpt2: Path) -> None:
    model, tokenizer = causal.build_model(), AutoTokenizer.from_pretrained(tiny_gpt2)
    expected = next_token_loss(model, tokenizer, PARAGRAPHS, causal.CONTEXT)
    compiled = []
    model.compile(backend=lambda graph, inputs: [compiled.append(inputs), graph.forward][1])
    assert next_token_loss(model, tokenizer, PARAGRAPHS, causal.CONTEXT) == expected
    assert not compiled


def test_a_classifier_on_a_language_model_is_scored_by_its_next_tokens(
    composed: Composer, tiny_gpt2: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    folder = tmp_path / "padded"
    causal.build_model().save_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    config = composed(*ONE, "method=lora", f"model.path={folder}", "train.lr=1e-12")
    found = run(config, "command", progress=False).record["diagnostics"]["forgetting"]
    assert found["loss"] == "next token"
    expected = next_token_loss(causal.build_model(), tokenizer, PARAGRAPHS, causal.CONTEXT)
    assert found["before"] == pytest.approx(expected, rel=1e-6)
    assert found["after"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_without_a_masked_token_head_the_record_says_so(
    composed: Composer, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    config = composed(*ONE, f"method={method}", f"model.path={tmp_path / 'headless'}")
    found = run(config, "command", progress=False).record["diagnostics"]
    assert found["forgetting_missing"] == "the checkpoint has no masked-token head"
    assert "forgetting" not in found
    assert ("layers" in found) == (method == "lora")


def test_an_architecture_without_such_a_head_is_named(composed: Composer) -> None:
    shape = T5Config(d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1, vocab_size=16)
    found = untrained.with_its_head(composed(*ONE, "method=lora"), T5ForSequenceClassification(shape))
    assert found.missing == "T5Config has no head that predicts masked or next tokens"
    assert found.model is None


def test_a_failure_does_not_lose_the_run(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nDetails")

    monkeypatch.setattr(forgetting.forgetting, "masked_loss", refuse)
    found = run(composed(*ONE, "method=ia3"), "command", progress=False).record
    assert found["status"] == "done"
    reason = "it failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert found["diagnostics"]["forgetting_missing"] == reason


def test_a_loss_that_is_not_finite_is_none(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting.forgetting, "masked_loss", lambda *_: math.inf)
    found = run(composed(*ONE, "method=ia3"), "command", progress=False).record["diagnostics"]
    assert found == {"forgetting_missing": "the loss on the fixed text is not finite"}


def test_vectors_are_no_text(composed: Composer) -> None:
    config = composed("task=regression", "model=linear", "method=lora", "data=teacher", "train.epochs=1")
    assert forgetting.unasked(config) == "the task has no texts"


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
