"""Events, and their realization as sentences: active and passive, both datives, questions, negation, synonyms."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from rosa.mini.text import lexicon
from rosa.mini.text.lexicon import Noun, Verb

T = TypeVar("T")


@dataclass(frozen=True)
class Phrase:
    """A noun with an optional adjective; the sentence adds the determiner."""

    noun: Noun
    adjective: tuple[str, ...] = ()
    """The adjective's synonyms; empty without one."""


@dataclass(frozen=True)
class Event:
    """The meaning of a sentence, independent of its words: who did what to whom, where and when."""

    agent: Phrase
    verb: Verb
    theme: Phrase | None = None
    recipient: Phrase | None = None
    place: str = ""
    time: str = ""
    negated: bool = False

    def but(self, **changes: object) -> Event:
        """The same event with some parts changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Words:
    """Chooses among synonyms: always the first, or a random one that it keeps to."""

    def __init__(self, rng: Random | None = None, names: Mapping[Sequence[str], str] | None = None) -> None:
        """``names``: synonyms -> the one to choose."""
        self._rng = rng
        self.names = dict(names or {})
        """What has been chosen so far."""

    def __call__(self, synonyms: Sequence[str]) -> str:
        """One of the synonyms."""
        if self._rng is None:
            return synonyms[0]
        return self.names.setdefault(synonyms, self._rng.choice(synonyms))


PLAIN = Words()


# --- meanings --------------------------------------------------------------------------------------------------------


def other(rng: Random, options: Sequence[T], *taken: T) -> T:
    """One of the options that is none of those taken."""
    return rng.choice([option for option in options if option not in taken])


@functools.cache
def nouns(kinds: tuple[str, ...], genre: str = "") -> tuple[Noun, ...]:
    """The nouns of some kinds that belong to a genre, or to any."""
    return tuple(noun for noun in lexicon.NOUNS if noun.kind in kinds and (not genre or noun.genre in ("", genre)))


def adjectives(noun: Noun) -> tuple[tuple[str, ...], ...]:
    """The adjectives that a noun can take."""
    return lexicon.ANIMATE_ADJECTIVES if noun.kind in lexicon.ANIMATE else lexicon.THING_ADJECTIVES


@functools.cache
def places(genre: str = "") -> tuple[str, ...]:
    """The places of a genre, or all."""
    return tuple(place for name, found in lexicon.PLACES.items() if genre in ("", name) for place in found)


def some_phrase(rng: Random, kinds: tuple[str, ...], genre: str = "", *taken: Phrase, adjective: float = 0.4) -> Phrase:
    """A random phrase whose noun is none of those taken; ``adjective`` is the probability of one."""
    noun = other(rng, nouns(kinds, genre), *(phrase.noun for phrase in taken))
    return Phrase(noun, rng.choice(adjectives(noun)) if rng.random() < adjective else ())


INTRANSITIVE = tuple(verb for verb in lexicon.VERBS if not verb.themes)
TRANSITIVE = tuple(verb for verb in lexicon.VERBS if verb.themes)
SYMMETRIC = tuple(verb for verb in TRANSITIVE if verb.themes == verb.agents)
"""Verbs whose subject and object can be exchanged."""


INTERCHANGEABLE = tuple(
    verb
    for verb in TRANSITIVE
    if sum((other.themes, other.agents) == (verb.themes, verb.agents) for other in TRANSITIVE) > 1
)
"""Transitive verbs that another verb can replace."""


def some_event(
    rng: Random,
    verbs: Sequence[Verb] = TRANSITIVE + lexicon.DATIVE_VERBS,
    genre: str = "",
    place: float = 0.5,
    time: float = 0.3,
    adjective: float = 0.4,
) -> Event:
    """A random event; the numbers are the probabilities of its optional parts."""
    verb = rng.choice(verbs)
    agent = some_phrase(rng, verb.agents, genre, adjective=adjective)
    theme = some_phrase(rng, verb.themes, genre, agent, adjective=adjective) if verb.themes else None
    recipient = some_phrase(rng, ("person",), genre, agent, adjective=0.0) if verb in lexicon.DATIVE_VERBS else None
    where = rng.choice(places(genre)) if rng.random() < place else ""
    when = rng.choice(lexicon.TIMES) if rng.random() < time else ""
    return Event(agent, verb, theme, recipient, where, when)


def swapped(event: Event) -> Event | None:
    """The event with the agent and another participant exchanged; None if that makes no sense."""
    agent, theme = event.agent, event.theme
    if event.recipient is not None:
        return event.but(agent=event.recipient, recipient=agent)
    if theme is not None and theme.noun.kind in event.verb.agents and agent.noun.kind in event.verb.themes:
        return event.but(agent=theme, theme=agent)
    return None


def changed(rng: Random, event: Event, part: str) -> Event:
    """The event with another agent, verb, theme, place or time, or negated."""
    agent, verb, theme, recipient = event.agent, event.verb, event.theme, event.recipient
    taken = [phrase.noun for phrase in (agent, theme, recipient) if phrase is not None]
    if part == "negation":
        return event.but(negated=not event.negated)
    if part == "place":
        return event.but(place=other(rng, places(), event.place))
    if part == "time":
        return event.but(time=other(rng, lexicon.TIMES, event.time))
    if part == "agent":
        noun = other(rng, nouns((agent.noun.kind,)), *taken)
        return event.but(agent=Phrase(noun, agent.adjective))
    if part == "theme" and theme is not None:
        noun = other(rng, nouns((theme.noun.kind,)), *taken)
        return event.but(theme=Phrase(noun, theme.adjective))
    if part == "verb":
        verbs = TRANSITIVE if recipient is None else lexicon.DATIVE_VERBS
        alike = [other for other in verbs if (other.themes, other.agents) == (verb.themes, verb.agents)]
        return event.but(verb=other(rng, alike, verb))
    raise AssertionError(f"part={part!r} of {event}: expected agent, verb, theme, place, time or negation")


# --- sentences -------------------------------------------------------------------------------------------------------


def sentence(*parts: str, end: str = ".") -> str:
    """Join the nonempty parts into a sentence, with a capital and a final mark."""
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + end


def noun_phrase(phrase: Phrase, words: Words = PLAIN, determiner: str = "the") -> str:
    """A phrase in the singular after a determiner; *a* becomes *an* before a vowel."""
    inner = " ".join([words(part) for part in (phrase.adjective, phrase.noun.names) if part])
    return lexicon.with_article(inner) if determiner == "a" else f"{determiner} {inner}"


def finite(verb: Verb, negated: bool, words: Words = PLAIN) -> str:
    """The verb in the past, negated with *did not*."""
    name = words(verb.names)
    return f"did not {name}" if negated else lexicon.past(name)


def objects(event: Event, words: Words = PLAIN, double: bool = False) -> str:
    """Theme and recipient after the verb: *the hat to the boy*, or as a double object, *the boy the hat*."""
    if event.theme is None:
        return ""
    theme = noun_phrase(event.theme, words)
    if event.recipient is None:
        return theme
    recipient = noun_phrase(event.recipient, words)
    return f"{recipient} {theme}" if double else f"{theme} to {recipient}"


def clause(event: Event, words: Words = PLAIN, passive: bool = False, double: bool = False) -> str:
    """Subject, verb and objects without place and time."""
    agent = noun_phrase(event.agent, words)
    if not passive:
        return f"{agent} {finite(event.verb, event.negated, words)} {objects(event, words, double)}".strip()
    assert event.theme is not None, f"{event.verb.names[0]!r} has no object, so it has no passive"
    to = f" to {noun_phrase(event.recipient, words)}" if event.recipient else ""
    done = lexicon.participle(words(event.verb.names))
    was = "was not" if event.negated else "was"
    return f"{noun_phrase(event.theme, words)} {was} {done}{to} by {agent}"


def statement(
    event: Event, words: Words = PLAIN, passive: bool = False, double: bool = False, front: bool = False
) -> str:
    """A declarative sentence; ``front`` moves place and time before the subject."""
    circumstance = f"{event.place} {event.time}".strip()
    said = clause(event, words, passive, double)
    if front and circumstance:
        return sentence(f"{circumstance},", said)
    return sentence(said, circumstance)


def said_somehow(rng: Random, event: Event, words: Words | None = None) -> str:
    """A declarative sentence in a random form; without ``words``, in random ones."""
    passive = event.theme is not None and rng.random() < 0.4
    return statement(event, words or Words(rng), passive, rng.random() < 0.5, rng.random() < 0.3)


QUESTIONS = ("polar", "agent", "theme", "place", "time")


def askable(event: Event) -> list[str]:
    """The questions that an event's parts can answer."""
    parts = {"theme": event.theme, "place": event.place, "time": event.time}
    return ["polar", "agent", *(part for part, filled in parts.items() if filled)]


def question(event: Event, asked: str, words: Words = PLAIN, passive: bool = False) -> str:
    """A question about an event: whether it happened (``polar``), or about one of its parts."""
    assert asked in QUESTIONS, f"asked={asked!r}: expected one of {', '.join(QUESTIONS)}"
    agent, name = noun_phrase(event.agent, words), words(event.verb.names)
    where, when = ("" if asked == "place" else event.place), ("" if asked == "time" else event.time)
    rest = objects(event, words)
    if asked == "agent":
        return sentence(
            words(("who", "which " + event.agent.noun.kind)), lexicon.past(name), rest, where, when, end="?"
        )
    if asked == "theme" and event.theme is not None:
        opening = "what" if event.theme.noun.kind in lexicon.THINGS else "who"
        opening = words((opening, "which " + event.theme.noun.kind))
        to = f"to {noun_phrase(event.recipient, words)}" if event.recipient else ""
        return sentence(opening, "did", agent, name, to, where, when, end="?")
    opening = {"polar": "", "place": words(("where", "in which place")), "time": words(("when", "at what time"))}.get(
        asked, ""
    )
    if passive and event.theme is not None:
        to = f"to {noun_phrase(event.recipient, words)}" if event.recipient else ""
        done = lexicon.participle(name)
        return sentence(opening, "was", noun_phrase(event.theme, words), done, to, "by", agent, where, when, end="?")
    return sentence(opening, "did", agent, name, rest, where, when, end="?")
