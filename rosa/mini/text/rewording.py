"""Reword an event for the second text of a pair: with synonyms (same meaning) or with other words (different meaning).

The parts that differ are drawn first; only then is it decided whether each gets a synonym or a different word, and
different words are drawn from those that have synonyms themselves. So shared and unshared words have the same
distribution in pairs of equal and of different meaning: the label depends on synonymy and on who did what alone.
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
"""The probability that a part is worded differently."""


def synonyms(event: Event, part: str) -> tuple[str, ...]:
    """The synonyms for a part of an event; empty if the event lacks the part."""
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
    """The alternatives to a part that change the meaning: nouns, verbs or adjectives that each have a synonym."""
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
    """The event with one part replaced by a random one of its alternatives (:func:`others`)."""
    return exchanged(event, part, rng.choice(others(event, part, genre)))


def rewordable(event: Event, parts: Sequence[str] = PARTS, genre: str = "") -> list[str]:
    """The parts that have both synonyms and alternatives (:func:`others`)."""
    return [part for part in parts if len(synonyms(event, part)) > 1 and others(event, part, genre)]


def retold(
    rng: Random, event: Event, words: Words, alters: bool, parts: Sequence[str] = PARTS, genre: str = ""
) -> tuple[Event, Words]:
    """The event and the word choices of the second text.

    Args:
        rng: of the draws.
        event: the event of the first text; has a :func:`rewordable` part.
        words: the word choices of the first text.
        alters: whether some of the reworded parts also change in meaning.
        parts: the parts that may differ.
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
