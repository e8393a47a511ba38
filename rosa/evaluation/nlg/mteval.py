"""What BLEU and NIST of mteval-v13a take a text for: its words, and their n-grams.

The words are sacrebleu's 13a tokens, with what mteval does before and after as Perl does it: it lower-cases A to Z
alone, joins lines with a space, and does not take the separators U+001C to U+001F for white space.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from string import ascii_lowercase, ascii_uppercase

Words = tuple[str, ...]

_SEPARATORS = {code: 0xF0000 + code for code in range(0x1C, 0x20)}
"""Python takes these for white space: letters of private use stand in for them."""
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def words(text: str) -> Words:
    """The words of one text."""
    tokens = _tokenizer()(" ".join(text.translate(_SEPARATORS).split()))
    return tuple(tokens.translate(_LOWER).split())  # not before: &QUOT; is no entity


def references(texts: Sequence[str]) -> list[Words]:
    """The words of a segment's references, less those that have none (a text of ``<skipped>`` alone)."""
    return [found for found in map(words, texts) if found]


def ngrams(text: Words, order: int) -> Counter[Words]:
    """How often a text holds each n-gram of 1 to ``order`` words."""
    return Counter(text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1))


@functools.cache
def _tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()
