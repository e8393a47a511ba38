"""A prompt and its reference to token ids, labels and what was cut."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from rosa.config import TaskConfig
from rosa.data.base import DataError, TaskData, shorten
from rosa.data.e2e import PAIR_COLUMNS, GenerationData, prompt
from rosa.data.tokenization import mapped
from rosa.labels import IGNORED

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def tokenize_pairs(
    data: GenerationData, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TaskData:
    """Replace MR and reference by ``input_ids``, ``attention_mask`` and ``labels``.

    ::

        Input: name[The Vaults] Output:   The Vaults is a pub .   <end>
        |-- prompt, tokenized alone --|   |- " " + reference -|
        |-- labels: ignored ----------|   |-- labels: the tokens -----|     (loss_on=reference)

    The prompt is tokenized alone, as it is when there is nothing after it to decode yet, so that its tokens are the
    same in both. An example that is longer than the limit loses the end of its reference, with the end token; how many
    did is in the facts, and logged.

    Raises:
        DataError: the prompt alone leaves no room for a token of the reference, or the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(f"{task.name}: the tokenizer has no end token, so no sentence could ever end")
    limit = min(max_length, tokenizer.model_max_length)
    facts = copy.deepcopy(data.facts)
    facts["max_length"] = limit

    def tokenized(name: str, split: datasets.Dataset) -> datasets.Dataset:
        counts = {"tokens": 0, "scored_tokens": 0, "truncated": 0}

        def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            return _encode(batch, task, tokenizer, limit, f"{task.name}, split {name}", counts)

        result = mapped(split, encode, list(PAIR_COLUMNS))
        facts["splits"][name].update(counts)
        if counts["truncated"]:
            log.warning(
                "%s: %d of %d examples of %s are longer than train.max_length=%d tokens and lose their end",
                task.name,
                counts["truncated"],
                len(split),
                name,
                limit,
            )
        return result

    train = tokenized("train", data.train)
    return TaskData(train, {name: tokenized(name, split) for name, split in data.evaluation.items()}, facts)


def _encode(
    batch: dict[str, list[str]],
    task: TaskConfig,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    place: str,
    counts: dict[str, int],
) -> dict[str, list[list[int]]]:
    prompts = [prompt(task, mr) for mr in batch["mr"]]
    targets = [f" {reference}" for reference in batch["ref"]]
    plain: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
    given, wanted = tokenizer(prompts, **plain)["input_ids"], tokenizer(targets, **plain)["input_ids"]
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for text, start, rest in zip(prompts, given, wanted, strict=True):
        if len(start) >= limit:
            raise DataError(
                f"{place}: the prompt {shorten(text)} has {len(start)} tokens, which leaves no room for a reference in "
                f"{limit} (train.max_length, or what the model can take)"
            )
        whole = [*start, *rest, tokenizer.eos_token_id]
        ids = whole[:limit]
        ignored = len(start) if task.loss_on == "reference" else 0
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([IGNORED] * ignored + ids[ignored:])
        counts["tokens"] += len(ids)
        # A model predicts every token but the first one.
        counts["scored_tokens"] += len(ids) - max(ignored, 1)
        counts["truncated"] += len(whole) > limit
    return columns
