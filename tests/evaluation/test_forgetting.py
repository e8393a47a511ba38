from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rosa.evaluation import forgetting
from rosa.evaluation.forgetting import FIRST, LONGEST, STEP, masked_loss, next_token_loss

TEXTS = ["the cat sees a dog .", "every child likes the old house near the river , and nobody ever says why ."]


class Sure(nn.Module):
    """Gives the token that stands at a place, or the next one, the logit ``height`` over all others."""

    def __init__(self, size: int, height: float, ahead: int, truth: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.size, self.height, self.ahead, self.truth = size, height, ahead, truth
        self.seen: list[Tensor] = []

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(input_ids)
        told = (input_ids if self.truth is None else self.truth).roll(-self.ahead, dims=1)
        return SimpleNamespace(logits=self.height * nn.functional.one_hot(told, self.size).float())


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def test_a_model_that_knows_nothing_has_the_entropy_of_the_vocabulary(tokenizer: Any) -> None:
    size = len(tokenizer)
    assert masked_loss(Sure(size, 0.0, 0), tokenizer, TEXTS) == pytest.approx(math.log(size))
    assert next_token_loss(Sure(size, 0.0, 1), tokenizer, TEXTS) == pytest.approx(math.log(size), rel=1e-6)


def test_the_loss_is_that_of_the_truth_at_the_masked_places(tokenizer: Any) -> None:
    size, height = len(tokenizer), 3.0
    truth = tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    expected = math.log(1 + (size - 1) * math.exp(-height))
    told = Sure(size, height, 0, truth).train()
    assert masked_loss(told, tokenizer, TEXTS) == pytest.approx(expected, rel=1e-6)
    assert told.training
    assert next_token_loss(Sure(size, height, 1), tokenizer, TEXTS) == pytest.approx(expected, rel=1e-5)
    # Whoever sees only the masked text knows none of the hidden tokens.
    (seen,) = told.seen
    hidden = seen != truth
    assert set(seen[hidden].tolist()) == {tokenizer.mask_token_id}
    special = torch.isin(truth, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]))
    places = torch.arange(truth.shape[1]).expand_as(truth)
    assert torch.equal(hidden, (places % STEP == FIRST) & ~special)


def test_the_loss_is_that_of_transformers_own_labels(tiny_model: Path, tokenizer: Any) -> None:
    model = AutoModelForMaskedLM.from_pretrained(tiny_model).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    places = torch.arange(batch["input_ids"].shape[1])
    chosen = (places % STEP == FIRST) & (batch.pop("special_tokens_mask") == 0)
    labels = batch["input_ids"].masked_fill(~chosen, -100)
    batch["input_ids"] = batch["input_ids"].masked_fill(chosen, tokenizer.mask_token_id)
    with torch.no_grad():
        expected = float(model(**batch, labels=labels).loss)
    assert masked_loss(model, tokenizer, TEXTS) == pytest.approx(expected, rel=1e-5)


def test_the_text_is_a_few_hundred_words_in_paragraphs_that_are_not_cut() -> None:
    assert 200 <= sum(len(text.split()) for text in forgetting.PARAGRAPHS) <= 400
    assert max(len(text.split()) for text in forgetting.PARAGRAPHS) < LONGEST / 2
