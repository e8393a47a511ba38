"""Mini MRPC, QQP and STS-B: paraphrases of sentences and questions, and graded similarity."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from rosa.mini.text import grammar, lexicon, rewording
from rosa.mini.text.grammar import Event, Words

SWAPPED, ALTERED = 0.35, 0.5
"""Shares of the pairs of different meaning: two participants are swapped (where that is possible); some reworded parts
change in meaning. In the remaining pairs, further parts change."""
OTHER_PART = 0.15
"""Share of the pairs of different questions that ask for another part of the same event."""


def paraphrased_event(rng: Random, adjective: float = 0.3) -> Event:
    """A random event with at least two parts that can be reworded; in more than half, agent and object can swap."""
    verbs = grammar.SYMMETRIC if rng.random() < 0.5 else grammar.INTERCHANGEABLE + lexicon.DATIVE_VERBS
    while True:
        event = grammar.some_event(rng, verbs, place=0.6, adjective=adjective)
        if len(rewording.rewordable(event)) > 1:
            return event


def otherwise(rng: Random, event: Event, parts: Sequence[str]) -> Event:
    """A similar event: one to three of the given parts are changed."""
    for part in rng.sample(parts, min(len(parts), rng.choice((1, 2, 3)))):
        event = grammar.changed(rng, event, part)
    return event


def different(
    rng: Random, event: Event, words: Words, parts: Sequence[str], visible: Sequence[str]
) -> tuple[Event, Words]:
    """An event that differs in meaning from that of the first text, and the word choices of the second text.

    Args:
        rng: of the draws.
        event: the event of the first text.
        words: the word choices of the first text.
        parts: of :data:`rewording.PARTS`, those that may differ.
        visible: parts for :func:`grammar.changed`, which changes them whether or not the new words have synonyms.
    """
    kind = rng.random()
    swap, alter = kind < SWAPPED and grammar.swapped(event) is not None, kind < SWAPPED + ALTERED
    second, second_words = rewording.retold(rng, event, words, alters=alter and not swap, parts=parts)
    if swap:
        return grammar.swapped(second) or second, second_words
    return (second if alter else otherwise(rng, second, visible)), second_words


def mrpc(rng: Random, label: int) -> dict[str, str]:
    """Two sentences with the same meaning (label 1), or about different events with shared words (0)."""
    first, words = paraphrased_event(rng), Words(rng)
    text = grammar.said_somehow(rng, first, words)
    if label:
        second, words = rewording.retold(rng, first, words, alters=False)
    else:
        visible = ("agent", "verb", "theme", *(["place"] if first.place else []))
        second, words = different(rng, first, words, rewording.PARTS, visible)
    return {"sentence1": text, "sentence2": grammar.said_somehow(rng, second, words)}


def qqp(rng: Random, label: int) -> dict[str, str]:
    """Two questions with the same meaning (label 1), or about another part or another event (0)."""
    while True:
        first = paraphrased_event(rng)
        asked = asked_second = rng.choice(grammar.askable(first))
        # The part that is asked for does not occur in the question: changing it would give the same question.
        parts = [part for part in rewording.PARTS if not part.startswith(asked)]
        if rewording.rewordable(first, parts):
            break
    words = Words(rng)
    text = grammar.question(first, asked, words, passive=rng.random() < 0.4)
    kind = 1.0 if label else rng.random()
    if label or kind < OTHER_PART:
        second, words = rewording.retold(rng, first, words, False, parts)
        if not label:
            asked_second = grammar.other(rng, grammar.askable(first), asked)
    else:
        second, words = different(rng, first, words, parts, [p for p in ("agent", "verb", "theme") if p != asked])
        if first.theme is not None and second.agent.noun is first.theme.noun:
            # *Who praised the cook?* and *Who did the cook praise?*
            asked_second = {"agent": "theme", "theme": "agent"}.get(asked, asked)
    return {"question1": text, "question2": grammar.question(second, asked_second, words, passive=rng.random() < 0.4)}


WEIGHTS = {"agent": 1.0, "verb": 1.0, "theme": 1.0, "place": 1.0, "time": 0.5, "negation": 0.5}
"""Weight of each part in the similarity of two sentences that share it; the sum is 5."""
WORDED = ("agent", "verb", "theme")
"""The parts in ``WEIGHTS`` that have synonyms."""
SYNONYM, CHANGED, EXCHANGED = 0.4, 0.4, 0.15
"""Probabilities that a part in ``WORDED`` gets a synonym, that a part changes, and that agent and object are swapped
where that is possible."""


def stsb(rng: Random) -> dict[str, str | float]:
    """Two sentences and their similarity from 0 to 5: the summed weights of the parts that they share."""
    while True:
        first = grammar.some_event(rng, grammar.INTERCHANGEABLE, place=1.0, time=1.0, adjective=0.0)
        if len(rewording.rewordable(first, WORDED)) == len(WORDED):
            break
    first = first.but(negated=rng.random() < 0.5)
    words = Words(rng)
    text = grammar.said_somehow(rng, first, words)
    second, names = first, dict(words.names)
    for part in WORDED:
        fate = rng.random()
        if fate < SYNONYM:
            same = rewording.synonyms(first, part)
            names[same] = grammar.other(rng, same, words(same))
        elif fate < SYNONYM + CHANGED:
            second = rewording.altered(rng, second, part)
    for part in ("place", "time", "negation"):
        if rng.random() < CHANGED:
            second = grammar.changed(rng, second, part)
    if rng.random() < EXCHANGED:
        second = grammar.swapped(second) or second
    return {
        "sentence1": text,
        "sentence2": grammar.said_somehow(rng, second, Words(rng, names)),
        "label": sum((weight for part, weight in WEIGHTS.items() if _part(first, part) == _part(second, part)), 0.0),
    }


def _part(event: Event, part: str) -> object:
    return event.negated if part == "negation" else getattr(event, part)
