"""BLEU (Papineni and others 2002) by the rules of mteval-v13a, with any number of references a segment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rosa.evaluation.nlg import mteval

ORDER = 4
"""N-grams of up to so many words."""


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of a corpus, from 0 to 1.

    sacrebleu computes the same, but where outputs are so poor that an order has no n-gram, or none that matches: there
    mteval's precision is 1 or that of half a match, and sacrebleu's BLEU is 0 as a whole.

    Args:
        hypotheses: one a segment.
        references: at least one a segment, in any number.
    """
    matched, produced = [0] * ORDER, [0] * ORDER
    length = reference_length = 0
    for text, group in zip(hypotheses, references, strict=True):
        ours, theirs = mteval.words(text), mteval.references(group)
        length += len(ours)
        # The reference of the nearest length, the shorter of two.
        reference_length += min(map(len, theirs), key=lambda n: (abs(n - len(ours)), n), default=0)
        allowed: Counter[mteval.Words] = Counter()
        for other in theirs:
            allowed |= mteval.ngrams(other, ORDER)
        for ngram, count in mteval.ngrams(ours, ORDER).items():
            produced[len(ngram) - 1] += count
            matched[len(ngram) - 1] += min(count, allowed[ngram])
    if not length:
        return 0.0
    precisions = _smoothed(matched, produced)
    return math.exp(math.fsum(map(math.log, precisions)) / ORDER + min(0.0, 1 - reference_length / length))


def _smoothed(matched: Sequence[int], produced: Sequence[int]) -> list[float]:
    """The precision of each order: 1 without n-grams; where none matches, as if half of one did, then a quarter."""
    precisions, smooth = [], 1.0
    for found, made in zip(matched, produced, strict=True):
        if made and not found:
            smooth /= 2
        precisions.append((found or smooth) / made if made else 1.0)
    return precisions
