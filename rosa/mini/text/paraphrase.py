"""Mini MRPC, QQP and STS-B: paraphrases of sentences and questions, and graded similarity."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from rosa.mini.text import grammar, lexicon
from rosa.mini.text.grammar import Event, Words


def paraphrased_event(rng: Random) -> Event:
    """A random event; in more than half of them agent and object can be exchanged."""
    verbs = grammar.SYMMETRIC if rng.random() < 0.5 else grammar.INTERCHANGEABLE + lexicon.DATIVE_VERBS
    return grammar.some_event(rng, verbs, place=0.6, adjective=0.3)


def otherwise(rng: Random, event: Event, parts: Sequence[str]) -> Event:
    """A similar event: one to three of the given parts are changed."""
    for part in rng.sample(parts, min(len(parts), rng.choice((1, 2, 3)))):
        event = grammar.changed(rng, event, part)
    return event


def mrpc(rng: Random, label: int) -> dict[str, str]:
    """Two sentences with the same meaning (label 1), or about different events with shared words (0)."""
    first = second = paraphrased_event(rng)
    if not label:
        other_way = grammar.swapped(first)
        if other_way is not None and rng.random() < 0.3:
            second = other_way
        else:
            second = otherwise(rng, first, ("agent", "verb", "theme", *(["place"] if first.place else [])))
    return {"sentence1": grammar.said_somehow(rng, first), "sentence2": grammar.said_somehow(rng, second)}


def qqp(rng: Random, label: int) -> dict[str, str]:
    """Two questions with the same meaning (label 1), or about another part or another event (0)."""
    first = second = paraphrased_event(rng)
    asked = asked_second = rng.choice(grammar.askable(first))
    if not label:
        other_way = grammar.swapped(first)
        kind = rng.random()
        if kind < 0.2:
            asked_second = grammar.other(rng, grammar.askable(first), asked)
        elif kind < 0.4 and other_way is not None:
            second = other_way
        else:
            # The part that is asked for does not occur in the question: changing it would give the same question.
            second = otherwise(rng, first, [part for part in ("agent", "verb", "theme") if part != asked])
    texts = [
        grammar.question(event, part, Words(rng), passive=rng.random() < 0.4)
        for event, part in ((first, asked), (second, asked_second))
    ]
    return {"question1": texts[0], "question2": texts[1]}


WEIGHTS = {"agent": 1.0, "verb": 1.0, "theme": 1.0, "place": 1.0, "time": 0.5, "negation": 0.5}
"""Contribution of each part that two sentences share to their similarity; the sum is 5."""


def stsb(rng: Random) -> dict[str, str | float]:
    """Two sentences and their similarity from 0 to 5: the summed weights of the parts that they share."""
    first = grammar.some_event(rng, grammar.INTERCHANGEABLE, place=1.0, time=1.0, adjective=0.0)
    parts = sorted(WEIGHTS)
    different = rng.sample(parts, rng.randint(0, len(parts)))
    second = first
    for part in different:
        second = grammar.changed(rng, second, part)
    label = sum((weight for part, weight in WEIGHTS.items() if part not in different), start=0.0)
    return {
        "sentence1": grammar.said_somehow(rng, first),
        "sentence2": grammar.said_somehow(rng, second),
        "label": label,
    }
