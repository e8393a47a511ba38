"""The tokens that a tokenizer puts before a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def begin_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The begin token of every text (Llama, Gemma, Mistral), in a list; empty if the tokenizer adds none (GPT-2)."""
    marked, plain = (
        tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"] for special in (True, False)
    )
    return marked[:1] if marked[:1] == [tokenizer.bos_token_id] and len(marked) > len(plain) else []
