"""Texts to token ids."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rosa.data.base import TEXT_COLUMNS, DataError, TaskData

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

BATCH = 1000
PROGRESS_ROWS = 50_000
"""A split with more rows than this shows a progress bar."""


def tokenize(data: TaskData, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TaskData:
    """Replace the texts by ``input_ids``, ``attention_mask`` and whatever else the tokenizer makes.

    Nothing is padded: a batch is padded to its own longest example, by the collator. A pair that is too long loses
    tokens from its longer text first. The limit is ``max_length`` or what the tokenizer says the model can take,
    whichever is less; ``facts["max_length"]`` holds it.

    Raises:
        DataError: ``max_length`` leaves no room for a token of each text.
    """
    texts = [column for column in TEXT_COLUMNS if column in data.train.column_names]
    limit = min(max_length, tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
    if limit < special + len(texts):
        raise DataError(
            f"train.max_length={limit}: too short for {len(texts)} text(s) and the {special} special tokens that the "
            f"tokenizer adds; at least {special + len(texts)}"
        )
    facts = copy.deepcopy(data.facts)
    facts["max_length"] = limit

    def tokenized(name: str, split: datasets.Dataset) -> datasets.Dataset:
        result, counts = _tokenize_split(split, texts, tokenizer, limit)
        facts["splits"][name].update(counts)
        return result

    train = tokenized("train", data.train)
    return TaskData(train, {name: tokenized(name, split) for name, split in data.evaluation.items()}, facts)


def _tokenize_split(
    split: datasets.Dataset, texts: list[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[datasets.Dataset, dict[str, int]]:
    counts = {"tokens": 0, "truncated": 0}

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        columns = [batch[column] for column in texts]
        encoded = dict(tokenizer(*columns, truncation=False, verbose=False))
        # Encoding twice what is too long is how any tokenizer, fast or not, can tell how much that was.
        too_long = [row for row, ids in enumerate(encoded["input_ids"]) if len(ids) > limit]
        if too_long:
            cut = tokenizer(
                *([column[row] for row in too_long] for column in columns), truncation="longest_first", max_length=limit
            )
            for key, values in encoded.items():
                for row, value in zip(too_long, cut[key], strict=True):
                    values[row] = value
        counts["truncated"] += len(too_long)
        counts["tokens"] += sum(map(len, encoded["input_ids"]))
        return encoded

    return mapped(split, encode, texts), counts


def mapped(
    split: datasets.Dataset, encode: Callable[[dict[str, list[Any]]], Any], texts: list[str]
) -> datasets.Dataset:
    """A split whose text columns are replaced by what ``encode`` makes of a batch of rows, in memory."""
    with _progress_bar(len(split) > PROGRESS_ROWS):
        return split.map(
            encode,
            batched=True,
            batch_size=BATCH,
            remove_columns=texts,
            keep_in_memory=True,
            load_from_cache_file=False,
            # Given, so that the library need not hash the tokenizer; nothing is ever looked up by it.
            new_fingerprint=f"{split._fingerprint}-tokens",
            desc="tokenize",
        )


@contextmanager
def _progress_bar(shown: bool) -> Iterator[None]:
    """Hide the bars of ``datasets`` unless ``shown``, and leave the user's own choice as it was."""
    import datasets

    hide = not shown and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()
