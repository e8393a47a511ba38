"""Batches of examples, against transformers' own collators."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import (
    BertTokenizerFast,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from rosa.data.collator import PaddingCollator
from rosa.utils.names import IGNORED
from tests import causal


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def tokens(count: int, labels: list) -> list[dict]:
    draw = random.Random(0)
    rows = []
    for label in labels:
        length = draw.randint(1, count)
        ids = [draw.randint(3, 20) for _ in range(length)]
        types = sorted(draw.randint(0, 1) for _ in ids)
        rows.append({"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * length, "label": label})
    return rows


@pytest.fixture(params=["right", "left"])
def side(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0.5, 1.0, 4.25, 0.0], [1]], ids=["classes", "numbers", "one"])
def test_texts_with_a_label(side: str, multiple: int, labels: list) -> None:
    tokenizer = BertTokenizerFast(vocab={"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4}, padding_side=side)
    tokenizer._pad_token_type_id = 5  # so that no kind of padding is that of another column
    rows = tokens(19, labels)
    theirs = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)([dict(row) for row in rows])
    same(PaddingCollator(tokenizer, multiple)(rows), dict(theirs))


@pytest.mark.parametrize("multiple", [1, 8])
def test_texts_with_a_label_for_each_token(side: str, multiple: int) -> None:
    tokenizer: PreTrainedTokenizerBase = causal.build_tokenizer()
    tokenizer.padding_side = side
    rows = [
        {
            "input_ids": row["input_ids"],
            "attention_mask": row["attention_mask"],
            "labels": [IGNORED, *row["input_ids"][1:]],
        }
        for row in tokens(17, [0] * 5)
    ]
    stock = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=multiple)
    same(PaddingCollator(tokenizer, multiple)(rows), dict(stock([dict(row) for row in rows])))


def test_examples_are_not_changed() -> None:
    rows = tokens(9, [0, 1])
    before = [{name: list(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows]
    tokenizer = causal.build_tokenizer()
    PaddingCollator(tokenizer)(rows)
    assert rows == before


@pytest.mark.parametrize("prompts", [(5, 9, 7), (0, 4, 4), (1, 3, 3)], ids=["long", "none", "one token"])
def test_without_the_prompts_logits_loss_and_gradients_are_the_same(side: str, prompts: tuple[int, ...]) -> None:
    tokenizer: PreTrainedTokenizerBase = causal.build_tokenizer()
    tokenizer.padding_side = side
    draw = random.Random(1)
    rows = []
    for prompt, answer in zip(prompts, (4, 2, 6), strict=True):
        ids = [draw.randint(3, 20) for _ in range(prompt + answer)]
        labels = [IGNORED] * prompt + ids[prompt:]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    whole, trimmed = PaddingCollator(tokenizer)(rows), PaddingCollator(tokenizer, trims=True)(rows)
    length = whole["input_ids"].shape[1]
    earliest = min(row.index(True) for row in (whole["labels"] != IGNORED).tolist())
    assert trimmed["logits_to_keep"] == trimmed["labels"].shape[1] == length - max(0, earliest - 1)
    torch.manual_seed(0)
    model = causal.build_model().double().eval()
    found = []
    for batch in (whole, trimmed):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)  # transformers computes it in float32


def test_where_nothing_counts_everything_is_kept() -> None:
    rows = [{"input_ids": [3, 4], "attention_mask": [1, 1], "labels": [IGNORED, IGNORED]}]
    assert PaddingCollator(causal.build_tokenizer(), trims=True)(rows)["logits_to_keep"] == 2
