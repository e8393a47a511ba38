"""Tokenizing a loaded task, against counting words by hand."""

from __future__ import annotations

import json

import datasets
import pytest
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

from rosa.data import TaskData, tokenize
from rosa.errors import DataError

WORDS = ["a", "b", "c", "d", "e"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, A, B = 2, 3, 5, 6


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    return BertTokenizerFast(vocab=vocabulary, model_max_length=20)


def task_data(**columns: list) -> TaskData:
    train = datasets.Dataset.from_dict(columns)
    one = train.select([0])
    facts = {"splits": {"train": {"rows": len(train)}, "validation": {"rows": 1}}}
    return TaskData(train=train, evaluation={"validation": one}, facts=facts)


def test_pairs_are_cut_from_the_longer_text_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    data = task_data(text_a=["a b", "a " * 9, "a"], text_b=["b", "b b", "b " * 12], label=[1, 0, 1])
    result = tokenize(data, tokenizer, max_length=10)
    # [CLS] text_a [SEP] text_b [SEP]: seven places for words.
    assert result.train["input_ids"][:] == [
        [CLS, A, B, SEP, B, SEP],
        [CLS, *[A] * 5, SEP, B, B, SEP],
        [CLS, A, SEP, *[B] * 6, SEP],
    ]
    assert result.train["token_type_ids"][1] == [0] * 7 + [1] * 3
    assert result.train["attention_mask"][0] == [1] * 6  # no padding
    assert result.train["label"][:] == [1, 0, 1]
    assert set(result.train.column_names) == {"input_ids", "token_type_ids", "attention_mask", "label"}
    assert result.facts["max_length"] == 10
    assert result.facts["splits"]["train"] == {"rows": 3, "tokens": 26, "truncated": 2}
    assert result.facts["splits"]["validation"] == {"rows": 1, "tokens": 6, "truncated": 0}
    assert json.loads(json.dumps(result.facts)) == result.facts
    assert "max_length" not in data.facts
    assert "tokens" not in data.facts["splits"]["train"]


def test_batches_do_not_mix_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = [1 + row * 7 % 23 for row in range(2500)]
    data = task_data(text_a=["c " * length for length in lengths], label=[float(length) for length in lengths])
    result = tokenize(data, tokenizer, max_length=512)
    # 20 is the model's own limit; two places are for special tokens.
    assert [len(ids) for ids in result.train["input_ids"]] == [min(length + 2, 20) for length in lengths]
    assert result.train["label"][:] == lengths
    assert result.facts["max_length"] == 20
    assert result.facts["splits"]["train"]["truncated"] == sum(length > 18 for length in lengths)


def test_tokenizing_writes_no_cache_and_leaves_progress_bars_as_they_were(
    tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    before = datasets.are_progress_bars_disabled()
    result = tokenize(task_data(text_a=["a"], label=[0]), tokenizer, max_length=8)
    assert result.train.cache_files == []
    assert datasets.are_progress_bars_disabled() == before
    assert capfd.readouterr().err == ""


def test_a_length_without_room_for_words_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    data = task_data(text_a=["a"], text_b=["b"], label=[0])
    assert len(tokenize(data, tokenizer, max_length=5).train["input_ids"][0]) == 5
    with pytest.raises(DataError, match=r"train\.max_length=4: expected at least 5: 3 special tokens"):
        tokenize(data, tokenizer, max_length=4)
