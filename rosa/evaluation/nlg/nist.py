"""The NIST score (Doddington 2002) as mteval-v13a computes it, with any number of references per segment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rosa.evaluation.nlg import mteval

ORDER = 5
"""Largest n-gram order, in words."""
BETA = math.log(2) / math.log(1.5) ** 2
"""Brevity constant: an output of two thirds of the mean reference length keeps half the score."""
_NO_WORD = ((), ("0",))
"""Contexts treated as empty: none, and the single word ``0``, which is false in Perl."""


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus NIST score, from 0.

    The information of an n-gram is ``log2(count of its first n-1 words / its own count)`` over all references (of a
    unigram: ``log2(all words / its count)``). For each order, the information of the matching n-grams, with counts
    clipped to the largest in one reference of the segment, is summed over the corpus and divided by the number of
    n-grams in the hypotheses. The sum over the orders is multiplied by a brevity penalty.

    The penalty compares the length of all hypotheses with that of all references divided by the mean number of
    references per segment, as in the challenge's version of the script; the original divides by a fixed number of
    references.

    Args:
        hypotheses: one per segment.
        references: one or more per segment.
    """
    counts = [[mteval.ngrams(text, ORDER) for text in mteval.references(group)] for group in references]
    total: Counter[mteval.Words] = Counter()
    for group in counts:
        for reference in group:
            total.update(reference)
    reference_words = sum(count for ngram, count in total.items() if len(ngram) == 1)
    gained, produced = [0.0] * ORDER, [0] * ORDER
    for text, group in zip(hypotheses, counts, strict=True):
        for ngram, count in mteval.ngrams(mteval.words(text), ORDER).items():
            produced[len(ngram) - 1] += count
            allowed = max((reference[ngram] for reference in group), default=0)
            if allowed:
                first = ngram[:-1]
                before = reference_words if first in _NO_WORD else total[first]
                gained[len(ngram) - 1] += min(count, allowed) * math.log2(before / total[ngram])
    mean_length = reference_words * len(references) / max(sum(map(len, counts)), 1)
    return sum(g / max(p, 1) for g, p in zip(gained, produced, strict=True)) * _penalty(produced[0], mean_length)


def _penalty(length: int, reference_length: float) -> float:
    if length >= reference_length:
        return 1.0
    return math.exp(-BETA * math.log(length / reference_length) ** 2) if length else 0.0
