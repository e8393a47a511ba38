"""The NIST score (Doddington 2002) by the rules of mteval-v13a, with any number of references a segment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rosa.evaluation.nlg import mteval

ORDER = 5
"""N-grams of up to so many words."""
BETA = math.log(2) / math.log(1.5) ** 2
"""So that an output of two thirds of the references' length has half the score."""
_NO_WORD = ((), ("0",))
"""What may come before a word that counts as one without a context: Perl takes a lone 0 for nothing."""


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """NIST of a corpus.

    The information of an n-gram is ``log2`` of how often its first n-1 words occur in all references over how often it
    does itself (of a word: all words over its count). For each order, the information of the hypotheses' n-grams that
    a segment's references hold, each counted at most as often as in one of them, is summed over the corpus and divided
    by the number of n-grams in the hypotheses. The sum over the orders is multiplied by a penalty for brevity.

    The penalty compares the words of all hypotheses with those of all references divided by the mean number of
    references a segment, as the challenge's version of the script does; the original divides by one fixed number of
    references.

    Args:
        hypotheses: one a segment.
        references: at least one a segment, in any number.
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
