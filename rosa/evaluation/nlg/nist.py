"""The NIST score (Doddington 2002) by the rules of mteval-v13a, with any number of references a segment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase

ORDER = 5
"""N-grams of up to so many words."""
BETA = math.log(2) / math.log(1.5) ** 2
"""So that an output of two thirds of the references' length has half the score."""

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
Words = tuple[str, ...]


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """NIST of a corpus, on sacrebleu's 13a tokens with A to Z lower-cased.

    The information of an n-gram is ``log2`` of how often its first n-1 words occur in all references over how often it
    does itself (of a word: all words over its count). For each order, the information of the hypotheses' n-grams that
    a segment's references hold, each counted at most as often as in one of them, is summed over the corpus and divided
    by the number of n-grams in the hypotheses. The sum over the orders is multiplied by a penalty for brevity.

    The penalty compares the words of all hypotheses with those of all references divided by the mean number of
    references a segment. The original divides by one fixed number of references; with a number that varies, this is
    what the official E2E scorer's value needs. On its published example the highest number of references would give
    8.1302 and each segment's own mean 7.4143, where the official value and this one are 7.9261.

    Args:
        hypotheses: one a segment.
        references: at least one a segment, in any number.
    """
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()

    def words(text: str) -> Words:
        return tuple(tokenizer(text.translate(_LOWER)).split())

    ngrams = [[_ngrams(words(text)) for text in group] for group in references]
    total = Counter(ngram for group in ngrams for reference in group for ngram in reference)
    reference_words = sum(count for ngram, count in total.items() if len(ngram) == 1)
    gained, produced = [0.0] * ORDER, [0] * ORDER
    for text, group in zip(hypotheses, ngrams, strict=True):
        counts = [Counter(reference) for reference in group]
        for ngram, count in Counter(_ngrams(words(text))).items():
            produced[len(ngram) - 1] += count
            allowed = max(reference[ngram] for reference in counts)
            if allowed:
                before = total[ngram[:-1]] if len(ngram) > 1 else reference_words
                gained[len(ngram) - 1] += min(count, allowed) * math.log2(before / total[ngram])
    mean_length = reference_words * len(references) / sum(map(len, references))
    return sum(g / max(p, 1) for g, p in zip(gained, produced, strict=True)) * _penalty(produced[0], mean_length)


def _ngrams(words: Words) -> list[Words]:
    return [words[i : i + n] for n in range(1, ORDER + 1) for i in range(len(words) - n + 1)]


def _penalty(length: int, reference_length: float) -> float:
    if length >= reference_length:
        return 1.0
    return math.exp(-BETA * math.log(length / reference_length) ** 2) if length else 0.0
