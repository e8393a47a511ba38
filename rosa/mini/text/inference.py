"""Mini MNLI, RTE and QNLI: what a sentence entails, and whether it answers a question.

MNLI's premises say by their verb whether something happened (*managed to*, *failed to*), its hypotheses that it is true
or false. A hypothesis that says the same or less of what happened, or the same or more of what did not, is entailed,
and its negation is contradicted; one that says anything else is neutral.
"""

from __future__ import annotations

from random import Random

from rosa.mini.text import grammar, lexicon, rewording
from rosa.mini.text.grammar import Event, Phrase, Words

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2

# --- MNLI ------------------------------------------------------------------------------------------------------------

IMPLIED, DENIED = ("managed", "happened", "chose", "dared"), ("failed", "refused", "declined", "neglected")
"""Verbs of which *she ... to do it* implies that she did it, and that she did not."""
MNLI_PARTS = ("agent", "verb", "theme", "theme's adjective")
"""The parts that a hypothesis tells in other words."""
STEP = 0.4
"""The share of hypotheses that say more or less than their premise."""
MNLI_SWAPPED = 0.3
"""The share of the other neutral hypotheses in which two participants change places, where they can."""


def premise(rng: Random, event: Event, words: Words) -> str:
    """A sentence with a verb that implies the event or its absence: *The pilot managed to fix a car.*"""
    implies = rng.choice(DENIED if event.negated else IMPLIED)
    return grammar.sentence(_about_one(event, f"{implies} to {words(event.verb.names)}", words))


def hypothesis(event: Event, words: Words) -> str:
    """A sentence that calls the event true or false: *It is true that the pilot fixed a car.*"""
    frame = f"it is {'false' if event.negated else 'true'} that"
    return grammar.sentence(frame, _about_one(event, lexicon.past(words(event.verb.names)), words))


def _about_one(event: Event, did: str, words: Words) -> str:
    theme = grammar.noun_phrase(event.theme, words, "a") if event.theme else ""
    return " ".join(part for part in (grammar.noun_phrase(event.agent, words), did, theme, event.place) if part)


def wider(rng: Random, event: Event) -> Event | None:
    """What also happened if the event did: with less detail, or with a hypernym; None if nothing can be widened."""
    options = [event.but(place="")] if event.place else []
    if event.theme is not None:
        if event.theme.adjective:
            options.append(event.but(theme=Phrase(event.theme.noun)))
        options.append(event.but(theme=Phrase(lexicon.HYPERNYMS[event.theme.noun.kind], event.theme.adjective)))
    if event.verb.hypernym:
        options.append(event.but(verb=lexicon.HYPERNYM_VERBS[event.verb.hypernym]))
    return rng.choice(options) if options else None


def _some_event(rng: Random, genre: str) -> Event:
    """A random event, or its absence, with a part that can be reworded."""
    while True:
        event = grammar.some_event(rng, lexicon.VERBS, genre, time=0.0, adjective=0.5)
        event = event.but(agent=Phrase(event.agent.noun), negated=rng.random() < 0.5)
        if rewording.rewordable(event, MNLI_PARTS, genre):
            return event


def mnli_events(rng: Random, label: int, genre: str) -> tuple[Event, Event, Words, Words]:
    """What premise and hypothesis say, and the words that they say it in."""
    event, words = _some_event(rng, genre), Words(rng)
    wide = wider(rng, event) if rng.random() < STEP else None
    swaps = label == NEUTRAL and wide is None and rng.random() < MNLI_SWAPPED and grammar.swapped(event) is not None
    altered = label == NEUTRAL and wide is None and not swaps
    told, second_words = rewording.retold(rng, event, words, altered, MNLI_PARTS, genre)
    if wide is not None:
        # What did not happen, did not happen in any more detail either.
        widens = event.negated == (label == NEUTRAL)
        event, told = (event, wide) if widens else (wide, event)
    if swaps:
        told = grammar.swapped(told) or told
    negated = rng.random() < 0.5 if label == NEUTRAL else event.negated != (label == CONTRADICTION)
    return event, told.but(negated=negated), words, second_words


def mnli(rng: Random, label: int, genre: str) -> dict[str, str]:
    """Premise and hypothesis: entailment (0), neutral (1) or contradiction (2)."""
    first, second, words, second_words = mnli_events(rng, label, genre)
    return {"premise": premise(rng, first, words), "hypothesis": hypothesis(second, second_words)}


# --- RTE -------------------------------------------------------------------------------------------------------------

FACTIVE = ("knew", "remembered", "noticed", "forgot")
"""Verbs of which *she ... that it happened* implies that it happened."""
NOT_FACTIVE = ("hoped", "claimed", "thought", "feared")
LINKS = ("before", "after", "because", "while")
"""Conjunctions between two clauses that both happened."""


def _relative_clause(rng: Random, words: Words, entailed: bool) -> tuple[str, Event]:
    """*The nurse that praised the pilot sold the car*: which noun is the agent of which verb."""
    praised = grammar.some_event(rng, [v for v in grammar.SYMMETRIC if v.agents == ("person",)], place=0.0, time=0.0)
    things = [verb for verb in grammar.TRANSITIVE if verb.themes[0] not in lexicon.ANIMATE]
    sold = grammar.some_event(rng, things, time=0.0, adjective=0.2).but(agent=praised.agent)
    relative, said = (
        f"{grammar.finite(event.verb, False, words)} {grammar.objects(event, words)}" for event in (praised, sold)
    )
    premise = grammar.sentence(grammar.noun_phrase(praised.agent, words), "that", relative, said, sold.place)
    told = rng.choice((praised, sold))
    if entailed:
        return premise, told
    if told is praised:
        return premise, grammar.swapped(praised) or praised
    return premise, sold.but(agent=praised.theme)


def _said_that(rng: Random, words: Words, entailed: bool) -> tuple[str, Event]:
    """*The nurse knew that ... and hoped that ...*: only the first clause is entailed."""
    sure, unsure = (grammar.some_event(rng, place=0.0, time=0.0, adjective=0.1) for _ in range(2))
    person = grammar.noun_phrase(grammar.some_phrase(rng, ("person",), "", sure.agent, unsure.agent), words)
    told = [f"{rng.choice(FACTIVE)} that {grammar.clause(sure, words)}"]
    told.insert(rng.randrange(2), f"{rng.choice(NOT_FACTIVE)} that {grammar.clause(unsure, words)}")
    return grammar.sentence(person, " and ".join(told)), sure if entailed else unsure


def _linked(rng: Random, words: Words, entailed: bool) -> tuple[str, Event]:
    """*... before ...*: two events, and a third one made of nearly the same words."""
    first, second = (grammar.some_event(rng, place=0.0, time=0.0, adjective=0.2) for _ in range(2))
    premise = grammar.sentence(grammar.clause(first, words), rng.choice(LINKS), grammar.clause(second, words))
    event = rng.choice((first, second))
    if entailed:
        return premise, event
    return premise, _another(rng, event)


def _another(rng: Random, event: Event) -> Event:
    """A different event: the same words with the roles exchanged, or other people and things."""
    other_way = grammar.swapped(event)
    if other_way is not None and rng.random() < 0.3:
        return other_way
    for part in rng.choice((("agent",), ("theme",), ("agent", "theme"))):
        event = grammar.changed(rng, event, part)
    return event


def _in_detail(rng: Random, words: Words, entailed: bool) -> tuple[str, Event]:
    """*The brave nurse praised the pilot in the park today*: less detail and synonyms keep it true."""
    event = grammar.some_event(rng, grammar.TRANSITIVE, place=1.0, time=0.5)
    bare = event.but(agent=Phrase(event.agent.noun), place="", time="")
    return grammar.statement(event, words), bare if entailed else _another(rng, bare)


def rte(rng: Random, label: int) -> dict[str, str]:
    """A passage of one or two clauses, and a sentence that it implies (label 0) or leaves open (1)."""
    form = rng.choice((_relative_clause, _said_that, _linked, _in_detail, _in_detail))
    premise, event = form(rng, Words(rng), label == ENTAILMENT)
    return {"sentence1": premise, "sentence2": grammar.said_somehow(rng, event)}


# --- QNLI ------------------------------------------------------------------------------------------------------------

WRONG_CIRCUMSTANCE, EXCHANGED_ROLES = 0.5, 0.3
"""Of the sentences that do not answer: the share that tells the time where the place is asked for, or the place where
the time is; and the share of the others in which two participants change places, where they can."""


def qnli(rng: Random, label: int) -> dict[str, str]:
    """A question, and a sentence that answers it (label 0) or does not (1)."""
    verbs = grammar.SYMMETRIC if rng.random() < 0.3 else grammar.INTERCHANGEABLE + lexicon.DATIVE_VERBS
    while True:
        event = grammar.some_event(rng, verbs, place=1.0, time=1.0, adjective=0.2)
        asked = rng.choice(("agent", "theme", "place", "time"))
        # What is asked for does not occur in the question, so no word of it can be replaced.
        parts = [part for part in rewording.PARTS if not part.startswith(asked)]
        if rewording.rewordable(event, parts):
            break
    words = Words(rng)
    text = grammar.question(event.but(place="", time=""), asked, words, rng.random() < 0.3)
    circumstance = asked if asked in ("place", "time") else rng.choice(("place", "time"))
    wrong = swaps = False
    if label:
        wrong = circumstance == asked and rng.random() < WRONG_CIRCUMSTANCE
        swaps = not wrong and rng.random() < EXCHANGED_ROLES and grammar.swapped(event) is not None
    told, words = rewording.retold(rng, event, words, bool(label) and not wrong and not swaps, parts)
    if swaps:
        told = grammar.swapped(told) or told
    told = told.but(time="") if (circumstance == "place") != wrong else told.but(place="")
    return {"question": text, "sentence": grammar.said_somehow(rng, told, words)}
