"""The cache of tokenized splits, against tokenizing anew: what is kept, when it is not used, what a fault costs."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

from rosa.config import TaskConfig
from rosa.data import TaskData, token_cache, tokenization, tokenize
from rosa.data.e2e import GenerationData
from rosa.data.tokenization import tokenize_pairs
from tests import causal
from tests.data.test_tokenization import SPECIAL, WORDS, task_data

LIMIT = 6


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep splits of two rows and more; the validation split has one."""
    monkeypatch.setattr(token_cache, "CACHED_ROWS", 2)


def tokenizer_of(*words: str) -> PreTrainedTokenizerBase:
    return BertTokenizerFast(vocab={word: number for number, word in enumerate([*SPECIAL, *words])})


class Counted:
    """A tokenizer that counts the texts which it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.texts = tokenizer, 0

    def __call__(self, texts, *more, **options):
        self.texts += len(texts)
        return self.tokenizer(texts, *more, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def rows(**changes: list) -> TaskData:
    return task_data(**{"text_a": ["a b", "b " * 9], "label": [0, 1], **changes})


def same(one: TaskData, other: TaskData) -> None:
    assert one.facts == other.facts
    assert one.evaluation.keys() == other.evaluation.keys()
    for name in one.evaluation:
        same_rows(one.evaluation[name], other.evaluation[name])
    same_rows(one.train, other.train)


def same_rows(first: datasets.Dataset, second: datasets.Dataset) -> None:
    assert first.column_names == second.column_names
    assert first.features == second.features
    assert first[:] == second[:]


def test_a_second_run_reads_what_the_first_has_made(tmp_path: Path) -> None:
    fresh = tokenize(rows(), tokenizer_of(*WORDS), LIMIT)
    first, second = Counted(tokenizer_of(*WORDS)), Counted(tokenizer_of(*WORDS))
    same(tokenize(rows(), first, LIMIT, tmp_path), fresh)
    same(tokenize(rows(), second, LIMIT, tmp_path), fresh)
    assert first.texts == 2 + 1 + 1  # both rows, the one that is cut again, and the validation split
    assert second.texts == 1, "the validation split has one row, which is below the limit"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda data, tokenizer: (rows(text_a=["a b", "b " * 8]), tokenizer, LIMIT),
        lambda data, tokenizer: (rows(text_a=["b " * 9, "a b"], label=[1, 0]), tokenizer, LIMIT),
        lambda data, tokenizer: (rows(label=[1, 1]), tokenizer, LIMIT),
        lambda data, tokenizer: (rows(label=[0.0, 1.0]), tokenizer, LIMIT),
        lambda data, tokenizer: (data, tokenizer, LIMIT + 1),
        lambda data, tokenizer: (data, tokenizer_of("b", "a", "c"), LIMIT),
        lambda data, tokenizer: (data, BertTokenizerFast(vocab=tokenizer.get_vocab(), do_lower_case=False), LIMIT),
        lambda data, tokenizer: (data, changed(tokenizer, truncation_side="left"), LIMIT),
        lambda data, tokenizer: (data, changed(tokenizer, split_special_tokens=True), LIMIT),
    ],
    ids=["text", "order", "label", "kind of label", "limit", "vocabulary", "normalizer", "side that is cut", "special"],
)
def test_anything_that_changes_the_tokens_is_in_the_name(change, tmp_path: Path) -> None:
    tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path)
    data, tokenizer, limit = change(rows(), tokenizer_of(*WORDS))
    same(tokenize(data, tokenizer, limit, tmp_path), tokenize(data, tokenizer, limit))
    assert len(list(tmp_path.iterdir())) == 2


def changed(tokenizer: PreTrainedTokenizerBase, **attributes: Any) -> PreTrainedTokenizerBase:
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_earlier_calls_of_the_tokenizer_do_not_change_the_name(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(*WORDS)
    tokenize(rows(), tokenizer, LIMIT, tmp_path)
    tokenizer(["a", "a b"], truncation=True, max_length=3, padding="max_length")
    tokenize(rows(), tokenizer, LIMIT, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def batches_of(whole: bytes) -> list[int]:
    """Where the messages of an Arrow stream end."""
    source = pyarrow.BufferReader(whole)
    return [source.tell() for _ in pyarrow.ipc.MessageReader.open_stream(source)]


@pytest.mark.parametrize(
    "cut",
    [lambda whole: b"", lambda whole: b"no tokens", lambda whole: whole[: len(whole) // 2],
     lambda whole: whole[: batches_of(whole)[0]], lambda whole: whole[: batches_of(whole)[1]]],
    ids=["empty", "other", "cut in half", "without rows", "one batch"],
)  # fmt: skip
def test_a_broken_file_is_replaced(
    cut: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "BATCH", 1)
    monkeypatch.setattr(datasets.config, "DEFAULT_MAX_BATCH_SIZE", 1)
    fresh = tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.unlink()  # it is mapped into memory, so its bytes must stay
    file.write_bytes(cut(whole))
    for _ in range(2):
        same(tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path), fresh)
    assert file.read_bytes() == whole


def test_a_full_disk_costs_only_the_cache_and_is_left_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        found = tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    same(found, tokenize(rows(), tokenizer_of(*WORDS), LIMIT))
    assert list(tmp_path.iterdir()) == []


class Spaces:
    """A pre-tokenizer in Python."""

    def pre_tokenize(self, text: Any) -> None:
        text.split(lambda _, part: part.split(" ", "removed"))


def test_tokens_of_a_tokenizer_with_parts_in_python_are_not_kept(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(*WORDS)
    tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Spaces())
    same(tokenize(rows(), tokenizer, LIMIT, tmp_path), tokenize(rows(), tokenizer, LIMIT))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    same(
        tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path / "file" / "tokens"),
        tokenize(rows(), tokenizer_of(*WORDS), LIMIT),
    )


def test_pairs_are_kept_by_template_and_loss(tmp_path: Path) -> None:
    task = TaskConfig(
        name="e2e", kind="generation", texts=["mr", "ref"], metrics=["perplexity"], headline="perplexity",
        lower_is_better=True, prompt="{given}",
    )  # fmt: skip
    pairs = datasets.Dataset.from_dict({"mr": ["w0 w1", "w0"], "ref": ["w2", "w2 w1 w1"]})
    data = GenerationData(pairs, {"validation": pairs.select([0])}, {}, {"splits": {"train": {}, "validation": {}}})
    tokenizer = causal.build_tokenizer()
    for change in ({}, {"loss_on": "all"}, {"prompt": "w1 {given}"}, {}):
        own = dataclasses.replace(task, **change)
        same(tokenize_pairs(data, own, tokenizer, 4, tmp_path), tokenize_pairs(data, own, tokenizer, 4))
    assert len(list(tmp_path.iterdir())) == 3


def test_small_splits_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "CACHED_ROWS", 3)
    result = tokenize(rows(), tokenizer_of(*WORDS), LIMIT, tmp_path / "tokens")
    assert isinstance(result.train, datasets.Dataset)
    assert not (tmp_path / "tokens").exists()
