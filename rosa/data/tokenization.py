"""Tokenize the texts of a task."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.config import TRAIN, TaskConfig
from rosa.data.base import TEXT_COLUMNS, TaskData, shorten
from rosa.data.e2e import PAIR_COLUMNS, GenerationData, prompt
from rosa.data.token_cache import TokenCache
from rosa.errors import DataError
from rosa.utils.names import IGNORED
from rosa.utils.tokens import begin_tokens

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


BATCH = 1000
"""Rows tokenized at a time."""
PROGRESS_ROWS = 50_000
"""Splits with more rows than this show a progress bar."""
WHOLE = "whole"
"""The column of the number of tokens before cutting, until the cut examples are counted."""


def tokenize(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path | None = None
) -> TaskData:
    """Replace the texts by ``input_ids``, ``attention_mask`` and the tokenizer's further outputs.

    Nothing is padded here: the collator pads each batch to its longest example. Too long pairs lose tokens from the
    longer text first. The limit is the smaller of ``max_length`` and the tokenizer's ``model_max_length``, and is
    stored in ``facts["max_length"]``.

    Args:
        data: with texts.
        tokenizer: the model's.
        max_length: in tokens.
        cache_dir: where the tokens of large splits are kept for other runs; None keeps none.

    Raises:
        DataError: the limit leaves no room for a token of each text.
    """
    texts = [column for column in TEXT_COLUMNS if column in data.train.column_names]
    limit = min(max_length, tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
    if limit < special + len(texts):
        raise DataError(
            f"train.max_length={limit}: expected at least {special + len(texts)}: {special} special tokens of the "
            f"tokenizer, and a token for each of {len(texts)} text(s)"
        )
    facts = copy.deepcopy(data.facts)
    facts["max_length"] = limit
    cache = TokenCache(cache_dir, tokenizer, [limit]) if cache_dir else None

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return _encode_texts([batch[column] for column in texts], tokenizer, limit)

    def tokenized(name: str, split: datasets.Dataset) -> datasets.Dataset:
        result, counts = _mapped(split, encode, texts, cache)
        facts["splits"][name].update(counts)
        return result

    train = tokenized(TRAIN, data.train)
    return TaskData(train, {name: tokenized(name, split) for name, split in data.evaluation.items()}, facts)


def _encode_texts(columns: list[list[str]], tokenizer: PreTrainedTokenizerBase, limit: int) -> dict[str, list[Any]]:
    encoded = dict(tokenizer(*columns, truncation=False, verbose=False))
    # Encoding without truncation first counts the too long texts with any tokenizer, fast or slow.
    encoded[WHOLE] = [len(ids) for ids in encoded["input_ids"]]
    too_long = [row for row, length in enumerate(encoded[WHOLE]) if length > limit]
    if too_long:
        cut = tokenizer(
            *([column[row] for row in too_long] for column in columns), truncation="longest_first", max_length=limit
        )
        for key, values in cut.items():
            for row, value in zip(too_long, values, strict=True):
                encoded[key][row] = value
    return encoded


def _mapped(
    split: datasets.Dataset,
    encode: Callable[[dict[str, list[Any]]], dict[str, list[Any]]],
    texts: list[str],
    cache: TokenCache | None,
) -> tuple[datasets.Dataset, dict[str, int]]:
    """The split with its text columns replaced by the output of ``encode`` on batches of rows, and its counts.

    ``encode`` adds the column ``WHOLE``; the counts are those of tokens and of examples that were cut.
    """
    import pyarrow.compute as pc

    def make(**kept: Any) -> datasets.Dataset:
        return split.map(
            encode,
            batched=True,
            batch_size=BATCH,
            remove_columns=texts,
            # Avoids hashing the tokenizer; no cache uses this name.
            new_fingerprint=f"{split._fingerprint}-tokens",
            desc="tokenize",
            **kept,
        )

    with _progress_bar(len(split) > PROGRESS_ROWS):
        result = cache.get(split, texts, make) if cache else make(keep_in_memory=True, load_from_cache_file=False)
    lengths, whole = pc.list_value_length(result.data.column("input_ids")), result.data.column(WHOLE)
    counts = {"tokens": pc.sum(lengths).as_py(), "truncated": pc.sum(pc.less(lengths, whole)).as_py()}
    return result.remove_columns(WHOLE), counts


@contextmanager
def _progress_bar(shown: bool) -> Iterator[None]:
    """Hide the progress bars of ``datasets`` unless ``shown``; restores the user's setting."""
    import datasets

    hide = not shown and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()


def tokenize_pairs(
    data: GenerationData,
    task: TaskConfig,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    cache_dir: Path | None = None,
) -> TaskData:
    """Replace the MR and reference by ``input_ids``, ``attention_mask`` and ``labels``.

    ::

        Input: name[The Vaults] Output:   The Vaults is a pub .   <end>
        |-- prompt, tokenized alone --|   |- " " + reference -|
        |-- labels: ignored ----------|   |-- labels: the tokens -----|     (loss_on=reference)

    The tokens that the tokenizer begins every text with (``<bos>``), if any, precede the prompt. The prompt is
    tokenized alone, as in decoding, so that its tokens are the same there. An example that is too long loses the end of
    its reference, including the end token; the number of such examples is in the facts, and logged.

    Args:
        data: with representations and references.
        task: its ``prompt`` and ``loss_on`` are used.
        tokenizer: the model's.
        max_length: in tokens; the limit is the smaller of it and the tokenizer's ``model_max_length``.
        cache_dir: as for :func:`tokenize`.

    Raises:
        DataError: the prompt leaves no room for a token of the reference, or the tokenizer has no end token.
    """
    import pyarrow.compute as pc

    if tokenizer.eos_token_id is None:
        raise DataError(f"{task.name}: the tokenizer has no end token (eos_token), which text generation needs")
    limit = min(max_length, tokenizer.model_max_length)
    facts = copy.deepcopy(data.facts)
    facts["max_length"] = limit
    begin = begin_tokens(tokenizer)
    facts["begins_with"] = tokenizer.convert_ids_to_tokens(begin)
    settings = [limit, task.prompt, task.loss_on, begin, tokenizer.eos_token_id]
    cache = TokenCache(cache_dir, tokenizer, settings) if cache_dir else None

    def tokenized(name: str, split: datasets.Dataset) -> datasets.Dataset:
        def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            return _encode_pairs(batch, task, tokenizer, limit, f"{task.name}, split {name}")

        result, counts = _mapped(split, encode, list(PAIR_COLUMNS), cache)
        given = pc.sum(pc.not_equal(pc.list_flatten(result.data.column("labels")), IGNORED)).as_py()
        # The first token is not predicted.
        counts["scored_tokens"] = given - (len(split) if task.loss_on == "all" else 0)
        facts["splits"][name].update(counts)
        if counts["truncated"]:
            log.warning(
                "%s: %d of %d examples of %s are longer than train.max_length=%d tokens; their end is cut off",
                task.name,
                counts["truncated"],
                len(split),
                name,
                limit,
            )
        return result

    train = tokenized(TRAIN, data.train)
    return TaskData(train, {name: tokenized(name, split) for name, split in data.evaluation.items()}, facts)


def _encode_pairs(
    batch: dict[str, list[Any]], task: TaskConfig, tokenizer: PreTrainedTokenizerBase, limit: int, place: str
) -> dict[str, list[Any]]:
    prompts = [prompt(task, mr) for mr in batch["mr"]]
    targets = [f" {reference}" for reference in batch["ref"]]
    plain: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
    begin = begin_tokens(tokenizer)
    given = [[*begin, *ids] for ids in tokenizer(prompts, **plain)["input_ids"]]
    wanted = tokenizer(targets, **plain)["input_ids"]
    columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": [], WHOLE: []}
    for text, start, rest in zip(prompts, given, wanted, strict=True):
        if len(start) >= limit:
            raise DataError(
                f"{place}: the prompt {shorten(text)} has {len(start)} tokens; expected fewer than {limit}, the "
                "smaller of train.max_length and the model's limit, to leave room for the reference"
            )
        whole = [*start, *rest, tokenizer.eos_token_id]
        ids = whole[:limit]
        ignored = len(start) if task.loss_on == "reference" else 0
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([IGNORED] * ignored + ids[ignored:])
        columns[WHOLE].append(len(whole))
    return columns
