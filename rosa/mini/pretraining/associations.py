"""Initialize the small RoBERTa's embeddings from counts of which words replace each other in paraphrases.

A pretrained model knows synonyms from far more text than the small one is trained on. Counting finds them in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

FEWEST = 2.0
"""Added to the number of co-occurrences expected by chance, so that a few coincidences do not count."""
SHARE = 0.6
"""Weight of a word's associates in its vector, against its own 1."""


def associations(pairs: Iterable[tuple[Sequence[int], Sequence[int]]], vocabulary_size: int) -> torch.Tensor:
    """How closely each word goes with each other one (vocabulary_size, vocabulary_size), in rows of norm 1 or 0.

    A row is the positive pointwise mutual information of a word that only one of two texts has with the words that only
    the other one has. Words that both texts have say nothing about synonyms.
    """
    together = torch.zeros(vocabulary_size, vocabulary_size, dtype=torch.float64)
    for first, second in pairs:
        here, there = (torch.tensor(sorted(one)) for one in (set(first) - set(second), set(second) - set(first)))
        if len(here) and len(there):
            together[here[:, None], there] += 1
            together[there[:, None], here] += 1
    each = together.sum(1)
    by_chance = each[:, None] * each / together.sum().clamp(min=1)
    information = (together / (by_chance + FEWEST)).log().clamp(min=0)
    return torch.nn.functional.normalize(information, dim=1).float()


def associated(vectors: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """The vectors (words, width), each moved towards those of its associates; its length stays (random indexing)."""
    moved = vectors + SHARE * found @ vectors
    return moved * (vectors.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True).clamp(min=1e-12))
