"""BLEU (Papineni et al. 2002) as mteval-v13a computes it, with any number of references per segment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rosa.evaluation.nlg import mteval

ORDER = 4
"""Largest n-gram order, in words."""


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU, from 0 to 1.

    Equals sacrebleu's, except where an order has no n-gram or no match: mteval then takes a precision of 1, or of half
    a match; sacrebleu's BLEU is 0.

    Args:
        hypotheses: one per segment.
        references: one or more per segment.
    """
    matched, produced = [0] * ORDER, [0] * ORDER
    length = reference_length = 0
    for text, group in zip(hypotheses, references, strict=True):
        ours, theirs = mteval.words(text), mteval.references(group)
        length += len(ours)
        # The reference closest in length; the shorter one of a tie.
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
    """Precision per order: 1 without n-grams; without a match 1/2 match, halved at each further order without one."""
    precisions, smooth = [], 1.0
    for found, made in zip(matched, produced, strict=True):
        if made and not found:
            smooth /= 2
        precisions.append((found or smooth) / made if made else 1.0)
    return precisions
