"""Batches of tokenized examples, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rosa.utils.names import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PaddingCollator:
    """Makes a batch: tensors of shape (examples, tokens), and (examples,) for labels that are classes or numbers.

    Untrimmed, the tensors are those of transformers' ``DataCollatorWithPadding`` and, where labels are tokens,
    ``DataCollatorForSeq2Seq``, which take eight times as long for 32 examples of 128 tokens: 3 ms, where a GPU's step
    takes 50.

    Args:
        tokenizer: says what padding is, and on which side.
        multiple: the number of tokens is rounded up to a multiple of it.
        trims: leave out the labels, and by ``logits_to_keep`` the model's outputs, before the first one that counts in
            some example: outputs over a vocabulary are a large part of a step, and prompts need none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, multiple: int = 1, trims: bool = False) -> None:
        self._left = tokenizer.padding_side == "left"
        self._multiple = multiple
        self._trims = trims
        self._fill = {
            "input_ids": tokenizer.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": tokenizer.pad_token_type_id,
            "labels": IGNORED,
        }

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some tokenized examples, by the names of the model's inputs; ``label`` becomes ``labels``."""
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // self._multiple) * self._multiple
        batch: dict[str, Any] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if isinstance(values[0], list):
                padded = [self._padded(value, self._fill[name], length) for value in values]
                # A fifth of the time that torch.tensor takes for nested lists.
                batch[name] = torch.from_numpy(np.array(padded))
            else:
                batch["labels" if name == "label" else name] = torch.tensor(values)
        if self._trims:
            counted = (batch["labels"] != IGNORED).any(0).int()
            first = max(0, int(counted.argmax()) - 1)  # a token is predicted at the one before it
            batch["labels"], batch["logits_to_keep"] = batch["labels"][:, first:], length - first
        return batch

    def _padded(self, tokens: list[int], fill: int, length: int) -> list[int]:
        padding = [fill] * (length - len(tokens))
        return padding + tokens if self._left else tokens + padding
