"""Count evaluation rows whose texts also occur in the training rows: their score partly measures memorization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WORDS = 5
"""Minimum length in words of texts that are searched for in training texts; shorter ones occur by chance."""

Texts = Sequence[Sequence[str]]
"""One or two columns of texts."""


def in_train(train: Texts, evaluation: Texts) -> int:
    """The number of evaluation rows whose texts are those of a training row, up to case and blanks."""
    known = {_normal(row) for row in zip(*train, strict=True)}
    return sum(_normal(row) in known for row in zip(*evaluation, strict=True))


def inside_train(train: Sequence[str], evaluation: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """For each split, the number of texts of at least ``WORDS`` words that occur word for word in a training text.

    The training texts are read once: a text is compared only with those that have its first ``WORDS`` words in a row.
    """
    searched: dict[tuple[str, ...], set[str]] = {}
    spelled = {name: [" ".join(text.casefold().split()) for text in texts] for name, texts in evaluation.items()}
    for text in {text for texts in spelled.values() for text in texts}:
        words = text.split()
        if len(words) >= WORDS:
            searched.setdefault(tuple(words[:WORDS]), set()).add(text)
    found: set[str] = set()
    for text in train:
        words = text.casefold().split()
        whole = f" {' '.join(words)} "
        for start in range(len(words) - WORDS + 1):
            for candidate in searched.get(tuple(words[start : start + WORDS]), ()):
                if f" {candidate} " in whole:
                    found.add(candidate)
    return {name: sum(text in found for text in texts) for name, texts in spelled.items()}


def _normal(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(text.casefold().split()) for text in texts)
