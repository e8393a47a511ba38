"""An event told a second time: in other words with the same meaning, or in other words with another meaning.

Which words differ is drawn before it is decided whether they are synonyms, and what is no synonym is drawn from words
that have some. So the words that two texts share, and those that only one of them has, are distributed alike for equal
and for different meanings: only who knows the synonyms, or who did what, can tell.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from random import Random
from typing import Any

from rosa.mini.text import grammar, lexicon
from rosa.mini.text.grammar import Event, Words
from rosa.mini.text.lexicon import Verb

PARTS = ("agent", "agent's adjective", "verb", "theme", "theme's adjective", "recipient")
REWORDED = 0.6
"""The probability that a part is told in other words."""


def synonyms(event: Event, part: str) -> tuple[str, ...]:
    """The words for a part of an event; none where it has no such part."""
    role, _, of_adjective = part.partition("'s ")
    if role == "verb":
        return event.verb.names
    phrase = getattr(event, role)
    if phrase is None:
        return ()
    return phrase.adjective if of_adjective else phrase.noun.names


@functools.cache
def _verbs_like(verb: Verb) -> tuple[Verb, ...]:
    frame = (verb.themes, verb.agents, verb.hypernym)
    known = lexicon.DATIVE_VERBS if verb in lexicon.DATIVE_VERBS else lexicon.VERBS
    return tuple(one for one in known if (one.themes, one.agents, one.hypernym) == frame and len(one.names) > 1)


def others(event: Event, part: str, genre: str = "") -> list[Any]:
    """What a part could be instead, in a list of nouns, verbs or adjectives that each have a synonym."""
    role, _, of_adjective = part.partition("'s ")
    phrases = [phrase for phrase in (event.agent, event.theme, event.recipient) if phrase is not None]
    if role == "verb":
        return [verb for verb in _verbs_like(event.verb) if verb is not event.verb]
    phrase = getattr(event, role)
    if of_adjective:
        taken = [one.adjective for one in phrases]
        return [names for names in grammar.adjectives(phrase.noun) if len(names) > 1 and names not in taken]
    nouns = [one.noun for one in phrases]
    found = grammar.nouns((phrase.noun.kind,), genre)
    return [noun for noun in found if len(noun.names) > 1 and noun not in nouns]


def exchanged(event: Event, part: str, other: Any) -> Event:
    """The event with another noun, verb or adjective in one part."""
    role, _, of_adjective = part.partition("'s ")
    if role == "verb":
        return event.but(verb=other)
    field = "adjective" if of_adjective else "noun"
    return event.but(**{role: dataclasses.replace(getattr(event, role), **{field: other})})


def altered(rng: Random, event: Event, part: str, genre: str = "") -> Event:
    """The event with something else, that has a synonym too, in one part."""
    return exchanged(event, part, rng.choice(others(event, part, genre)))


def rewordable(event: Event, parts: Sequence[str] = PARTS, genre: str = "") -> list[str]:
    """Those of the parts that have synonyms and that could be something else that has some."""
    return [part for part in parts if len(synonyms(event, part)) > 1 and others(event, part, genre)]


def retold(
    rng: Random, event: Event, words: Words, alters: bool, parts: Sequence[str] = PARTS, genre: str = ""
) -> tuple[Event, Words]:
    """The event to tell a second time, and the words to tell it in.

    Args:
        rng: of the draws.
        event: what was told; has a :func:`rewordable` part.
        words: what chose the words that it was told in.
        alters: whether some of the parts that differ in words differ in meaning too.
        parts: the only ones that may differ.
        genre: of new nouns.
    """
    able = rewordable(event, parts, genre)
    differing = [part for part in able if rng.random() < REWORDED] or [rng.choice(able)]
    new = rng.sample(differing, rng.randint(1, len(differing))) if alters else []
    names = dict(words.names)
    for part in differing:
        if part in new:
            event = altered(rng, event, part, genre)
        else:
            same = synonyms(event, part)
            names[same] = grammar.other(rng, same, words(same))
    return event, Words(rng, names)
