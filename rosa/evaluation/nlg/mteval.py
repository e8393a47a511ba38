"""Words and n-grams of a text as mteval-v13a defines them, for BLEU and NIST.

Words are sacrebleu's 13a tokens, with mteval's (Perl's) treatment before and after: only A to Z are lower-cased, lines
are joined by a space, and the separators U+001C to U+001F are not white space.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from string import ascii_lowercase, ascii_uppercase

Words = tuple[str, ...]

_SEPARATORS = {code: 0xF0000 + code for code in range(0x1C, 0x20)}
"""Separators that Python's ``split`` takes for white space -> private-use characters in their place."""
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def words(text: str) -> Words:
    """The words of one text."""
    tokens = _tokenizer()(" ".join(text.translate(_SEPARATORS).split()))
    return tuple(tokens.translate(_LOWER).split())  # after tokenizing: &QUOT; is not an entity


def references(texts: Sequence[str]) -> list[Words]:
    """The words of a segment's references, without references that have no words (``<skipped>`` alone)."""
    return [found for found in map(words, texts) if found]


def ngrams(text: Words, order: int) -> Counter[Words]:
    """Counts of a text's n-grams of 1 to ``order`` words."""
    return Counter(text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1))


@functools.cache
def _tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()
