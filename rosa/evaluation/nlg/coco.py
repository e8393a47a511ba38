"""ROUGE-L and CIDEr as the COCO captioning scorer computes them, on texts of tokens joined by spaces.

Both give pycocoevalcap's values, up to rounding in the last digits, in about a tenth of its time: the longest common
subsequence takes a machine word's operations a token, and a word's weight is computed once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ROUGE_BETA = 1.2
"""Weight of recall against precision."""
CIDER_ORDER = 4
CIDER_SIGMA = 6.0
"""Width of the penalty for another length than the reference's, in tokens."""

Words = tuple[str, ...]


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean over segments of ROUGE-L (Lin 2004), an F-measure of the longest common subsequence.

    As in the official scorer, precision and recall are each the best over a segment's references, so they may come
    from two. An empty text counts as one empty token.
    """
    return math.fsum(map(_rouge_of_segment, hypotheses, references)) / len(hypotheses)


def _rouge_of_segment(hypothesis: str, references: Sequence[str]) -> float:
    tokens = hypothesis.split(" ")
    places: dict[str, int] = {}
    for i, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << i
    precision = recall = 0.0
    for reference in references:
        others = reference.split(" ")
        common = _longest_common(places, len(tokens), others)
        precision = max(precision, common / len(tokens))
        recall = max(recall, common / len(others))
    if precision == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common(places: dict[str, int], length: int, others: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the usual table at a time as the bits of one integer.

    A zero bit marks a column in which the row's value is one more than in the column before (Hyyrö 2004).

    Args:
        places: of each token of the one text, as set bits.
        length: of that text.
        others: tokens of the other text.
    """
    row = full = (1 << length) - 1
    for token in others:
        met = row & places.get(token, 0)
        if met:
            row = (row + met) | (row - met)
    return (~row & full).bit_count()


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean over segments of CIDEr-D (Vedantam, Zitnick and Parikh 2015), times 10.

    N-grams weigh by how few segments' references hold them, so the value of one segment depends on the others, and a
    corpus of one segment, where all weights are 0, scores 0.
    """
    reference_counts = [[_ngrams(text) for text in group] for group in references]
    holding = Counter(ngram for group in reference_counts for ngram in set().union(*group))
    rarest = math.log(len(references))
    weights = {ngram: rarest - math.log(count) for ngram, count in holding.items()}
    scores = []
    for text, group in zip(hypotheses, reference_counts, strict=True):
        hypothesis = _Vector(_ngrams(text), weights, rarest)
        similar = math.fsum(_similarity(hypothesis, _Vector(counts, weights, rarest)) for counts in group)
        scores.append(10 * similar / len(group))
    return math.fsum(scores) / len(scores)


def _ngrams(text: str) -> Counter[Words]:
    words = tuple(text.split())
    return Counter(words[i : i + n] for n in range(1, CIDER_ORDER + 1) for i in range(len(words) - n + 1))


class _Vector:
    """A text's n-grams, weighted: a vector for each order, in one mapping.

    Args:
        counts: of the text's n-grams.
        weights: of the n-grams that any reference holds.
        rarest: weight of all others.
    """

    def __init__(self, counts: Counter[Words], weights: dict[Words, float], rarest: float) -> None:
        self.values = {ngram: count * weights.get(ngram, rarest) for ngram, count in counts.items()}
        squares = [0.0] * CIDER_ORDER
        for ngram, value in self.values.items():
            squares[len(ngram) - 1] += value * value
        self.norms = [math.sqrt(square) for square in squares]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        """The official scorer counts a text's pairs of words, one less than its words."""


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    """The mean over the orders of the clipped cosine, with the penalty for another length."""
    products = [0.0] * CIDER_ORDER
    for ngram in hypothesis.values.keys() & reference.values.keys():
        value = reference.values[ngram]
        products[len(ngram) - 1] += min(hypothesis.values[ngram], value) * value
    norms = [h * r for h, r in zip(hypothesis.norms, reference.norms, strict=True)]
    cosines = (product / norm for product, norm in zip(products, norms, strict=True) if norm)
    penalty = math.exp(-((hypothesis.length - reference.length) ** 2) / (2 * CIDER_SIGMA**2))
    return penalty * math.fsum(cosines) / CIDER_ORDER
