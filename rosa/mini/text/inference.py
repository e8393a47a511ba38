"""Mini MNLI, RTE and QNLI: what a sentence entails, and whether it answers a question.

MNLI's labels come from a monotonicity calculus. A statement is ``quantifier noun-phrase verb-phrase``; noun and verb
phrase denote sets, and a word that is added or replaced by a narrower one makes its set smaller. Each quantifier is
monotone in both phrases (*some* upward in both, *every* downward in the noun and upward in the verb): a hypothesis made
by steps in these directions is entailed, its negation is contradicted, and one made by a step in the other direction is
neutral. *The* denotes one particular individual, and no noun phrase denotes the empty set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rosa.mini.text import grammar, lexicon
from rosa.mini.text.grammar import Event, Phrase, Words
from rosa.mini.text.lexicon import Verb
from rosa.mini.text.paraphrase import otherwise

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2

# --- MNLI ------------------------------------------------------------------------------------------------------------

QUANTIFIERS = ("the", "the not", "some", "no", "every", "not every")
OPPOSITE = {"the": "the not", "some": "no", "every": "not every"}
OPPOSITE |= {opposite: quantifier for quantifier, opposite in OPPOSITE.items()}
WEAKER = {"every": "some", "no": "not every", "the": "some"}
"""Quantifier -> the weaker one that it implies for the same phrases, if the noun phrase denotes something."""
UPWARD = {
    "the": (True, True),
    "the not": (True, False),
    "some": (True, True),
    "no": (False, False),
    "every": (False, True),
    "not every": (True, False),
}
"""Whether a quantifier stays true for a larger noun phrase, and for a larger verb phrase."""


@dataclass(frozen=True)
class Statement:
    """A quantified sentence."""

    quantifier: str
    subject: Phrase
    verb: Verb
    theme: Phrase | None
    place: str

    def text(self, words: Words) -> str:
        """The sentence; *the not* is the negation of a sentence about one individual."""
        quantifier, _, negation = self.quantifier.partition(" ")
        negated = quantifier == "the" and bool(negation)
        subject = grammar.noun_phrase(self.subject, words, "the" if negated else self.quantifier)
        theme = grammar.noun_phrase(self.theme, words, "a") if self.theme else ""
        return grammar.sentence(subject, grammar.finite(self.verb, negated, words), theme, self.place)


Step = Callable[[Random, Statement], Statement | None]
"""A change of one phrase; None if it does not apply to the statement."""


def _wider_phrase(phrase: Phrase) -> list[Phrase]:
    options = [Phrase(phrase.noun)] if phrase.adjective else []
    if phrase.noun.names[0] != phrase.noun.kind:
        options.append(Phrase(lexicon.HYPERNYMS[phrase.noun.kind], phrase.adjective))
    return options


def _narrower_phrase(rng: Random, phrase: Phrase, genre: str) -> list[Phrase]:
    options = [] if phrase.adjective else [Phrase(phrase.noun, rng.choice(grammar.adjectives(phrase.noun)))]
    if phrase.noun.names[0] == phrase.noun.kind:
        options.append(Phrase(rng.choice(grammar.nouns((phrase.noun.kind,), genre)), phrase.adjective))
    return options


def wider_or_narrower(rng: Random, statement: Statement, in_subject: bool, wider: bool, genre: str) -> Statement | None:
    """Make the noun phrase's or the verb phrase's set larger or smaller by one step; None if no step applies."""

    def phrases(phrase: Phrase) -> list[Phrase]:
        return _wider_phrase(phrase) if wider else _narrower_phrase(rng, phrase, genre)

    if in_subject:
        return _one(rng, [dataclasses.replace(statement, subject=phrase) for phrase in phrases(statement.subject)])
    options = (
        []
        if statement.theme is None
        else [dataclasses.replace(statement, theme=phrase) for phrase in phrases(statement.theme)]
    )
    if wider and statement.place:
        options.append(dataclasses.replace(statement, place=""))
    if not wider and not statement.place:
        options.append(dataclasses.replace(statement, place=rng.choice(grammar.places(genre))))
    if wider and statement.verb.hypernym:
        options.append(dataclasses.replace(statement, verb=lexicon.HYPERNYM_VERBS[statement.verb.hypernym]))
    narrower = [verb for verb in lexicon.VERBS if verb.hypernym and verb.hypernym == statement.verb.names[0]]
    if not wider and narrower:
        options.append(dataclasses.replace(statement, verb=rng.choice(narrower)))
    return _one(rng, options)


def _one(rng: Random, options: list[Statement]) -> Statement | None:
    return rng.choice(options) if options else None


def some_statement(rng: Random, genre: str) -> Statement:
    """A random statement; half of them have the determiner *the*."""
    verbs = [*lexicon.VERBS, *lexicon.HYPERNYM_VERBS.values()]
    event = grammar.some_event(rng, verbs, genre, time=0.0, adjective=0.5)
    quantifier = rng.choice(QUANTIFIERS[:2] if rng.random() < 0.5 else QUANTIFIERS[2:])

    def perhaps_hypernym(phrase: Phrase) -> Phrase:
        return Phrase(lexicon.HYPERNYMS[phrase.noun.kind], phrase.adjective) if rng.random() < 0.25 else phrase

    theme = None if event.theme is None else perhaps_hypernym(event.theme)
    return Statement(quantifier, perhaps_hypernym(event.agent), event.verb, theme, event.place)


def follow(rng: Random, statement: Statement, genre: str) -> Statement:
    """A statement entailed by another, made by one or two steps that preserve its truth."""
    followed = statement
    for _ in range(rng.choice((1, 1, 2))):
        if followed.quantifier in WEAKER and rng.random() < 0.25:
            followed = dataclasses.replace(followed, quantifier=WEAKER[followed.quantifier])
            break
        in_subject = rng.random() < 0.5
        wider = UPWARD[followed.quantifier][0 if in_subject else 1]
        followed = wider_or_narrower(rng, followed, in_subject, wider, genre) or followed
    return followed


def leave_open(rng: Random, statement: Statement, genre: str) -> Statement | None:
    """A statement that another neither entails nor contradicts; None if the drawn step does not apply."""
    opened: Statement | None
    if rng.random() < 0.3:
        frame = (statement.verb.themes, statement.verb.agents)
        verbs = [v for v in lexicon.VERBS if (v.themes, v.agents) == frame and v.hypernym == statement.verb.hypernym]
        verbs = [verb for verb in verbs if verb is not statement.verb and statement.verb.names[0] != verb.hypernym]
        opened = dataclasses.replace(statement, verb=rng.choice(verbs)) if verbs else None
        in_subject = False
    else:
        in_subject = rng.random() < 0.5
        wider = not UPWARD[statement.quantifier][0 if in_subject else 1]
        opened = wider_or_narrower(rng, statement, in_subject, wider, genre)
    # "The doctor slept" and "the tall doctor did not" contradict for one individual: only the verb can be neutral.
    may_negate = not (in_subject and statement.quantifier.startswith("the"))
    if opened is not None and may_negate and rng.random() < 0.5:
        return dataclasses.replace(opened, quantifier=OPPOSITE[opened.quantifier])
    return opened


def mnli_statements(rng: Random, label: int, genre: str) -> tuple[Statement, Statement]:
    """Premise and hypothesis for a label."""
    while True:
        premise = some_statement(rng, genre)
        if label == NEUTRAL:
            hypothesis = leave_open(rng, premise, genre)
        else:
            hypothesis = follow(rng, premise, genre)
            if label == CONTRADICTION:
                hypothesis = dataclasses.replace(hypothesis, quantifier=OPPOSITE[hypothesis.quantifier])
        if hypothesis is not None and hypothesis != premise:
            return premise, hypothesis


def mnli(rng: Random, label: int, genre: str) -> dict[str, str]:
    """Premise and hypothesis: entailment (0), neutral (1) or contradiction (2)."""
    premise, hypothesis = mnli_statements(rng, label, genre)
    return {"premise": premise.text(Words(rng)), "hypothesis": hypothesis.text(Words(rng))}


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


def qnli(rng: Random, label: int) -> dict[str, str]:
    """A question, and a sentence that answers it (label 0) or does not (1)."""
    asked = rng.choice(("agent", "theme", "place", "time"))
    verbs = grammar.INTERCHANGEABLE + lexicon.DATIVE_VERBS
    event = grammar.some_event(rng, verbs, place=1.0, time=1.0, adjective=0.2)
    shown = _with_one_circumstance(rng, event, asked)
    text = grammar.question(event.but(place="", time=""), asked, Words(rng), rng.random() < 0.3)
    told = shown if label == 0 else _not_an_answer(rng, shown, asked)
    return {"question": text, "sentence": grammar.said_somehow(rng, told)}


def _with_one_circumstance(rng: Random, event: Event, asked: str) -> Event:
    """The event with either its place or its time; the one that is asked for is kept."""
    keeps_place = asked == "place" if asked in ("place", "time") else rng.random() < 0.5
    return event.but(time="") if keeps_place else event.but(place="")


def _not_an_answer(rng: Random, event: Event, asked: str) -> Event:
    """An event that does not answer: the wrong circumstance, or an event other than the one asked about."""
    if asked in ("place", "time") and rng.random() < 0.6:
        if asked == "place":
            return event.but(place="", time=rng.choice(lexicon.TIMES))
        return event.but(time="", place=rng.choice(grammar.places()))
    return otherwise(rng, event, [part for part in ("agent", "theme", "verb") if part != asked])
