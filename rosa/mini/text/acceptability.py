"""Mini CoLA: minimal pairs of an acceptable sentence and one that breaks a single rule of English."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from rosa.mini.text import grammar, lexicon
from rosa.mini.text.grammar import Event
from rosa.mini.text.lexicon import Noun, Verb

Pair = tuple[str, str]
"""An acceptable sentence and its corruption."""


def _number(noun: Noun, is_plural: bool) -> str:
    return lexicon.plural(noun.names[0]) if is_plural else noun.names[0]


def _people(rng: Random, *taken: Noun) -> Noun:
    return grammar.other(rng, grammar.nouns(("person",)), *taken)


def _predicate(event: Event) -> str:
    said = lexicon.past(event.verb.names[0])
    return " ".join(part for part in (said, grammar.objects(event), event.place, event.time) if part)


def _needs_object(verb: Verb) -> bool:
    return verb.names[0] not in lexicon.OBJECT_OPTIONAL


def agreement(rng: Random) -> Pair:
    """Subject-verb agreement, with an attractor noun nearer to the verb."""
    subject, verb = _people(rng), rng.choice(grammar.INTRANSITIVE).names[0]
    near, is_plural = _people(rng, subject), rng.random() < 0.5
    between = rng.choice(("near the {}", "that likes the {}" if not is_plural else "that like the {}", "behind the {}"))
    start = f"the {_number(subject, is_plural)} {between.format(_number(near, rng.random() < 0.5))}"
    forms = [lexicon.third_person(verb), verb]
    place = rng.choice(grammar.places())
    return grammar.sentence(start, forms[is_plural], place), grammar.sentence(start, forms[not is_plural], place)


def adjective_order(rng: Random) -> Pair:
    """Word order: the adjective stands between determiner and noun."""
    event = grammar.some_event(rng, grammar.TRANSITIVE, adjective=0.0, time=0.0)
    adjective = rng.choice(rng.choice(grammar.adjectives(event.agent.noun)))
    noun, rest = event.agent.noun.names[0], _predicate(event)
    wrong = rng.choice((f"the {noun} {adjective}", f"{adjective} the {noun}"))
    return grammar.sentence(f"the {adjective} {noun}", rest), grammar.sentence(wrong, rest)


def determiner(rng: Random) -> Pair:
    """Determiner-noun agreement in number; the other noun phrase of the sentence has either number."""
    verb, is_plural = rng.choice(grammar.SYMMETRIC), rng.random() < 0.5
    noun = _people(rng)
    article = rng.choice(("many", "several", "these") if is_plural else ("every", "each", "this"))
    rest = f"{lexicon.past(verb.names[0])} the {_number(_people(rng, noun), rng.random() < 0.5)}"
    good, bad = (f"{article} {_number(noun, number)}" for number in (is_plural, not is_plural))
    if rng.random() < 0.5:
        return grammar.sentence(good, rest), grammar.sentence(bad, rest)
    start = f"the {_number(_people(rng, noun), rng.random() < 0.5)} {lexicon.past(verb.names[0])}"
    return grammar.sentence(start, good), grammar.sentence(start, bad)


def selection(rng: Random) -> Pair:
    """Selectional restrictions: things do not act on people, so subject and object cannot be exchanged."""
    verbs = [verb for verb in grammar.TRANSITIVE if set(verb.themes) <= set(lexicon.THINGS)]
    event = grammar.some_event(rng, verbs)
    subject, theme = grammar.noun_phrase(event.agent), grammar.objects(event)
    verb = lexicon.past(rng.choice(event.verb.names))
    return (
        grammar.sentence(subject, verb, theme, event.place, event.time),
        grammar.sentence(theme, verb, subject, event.place, event.time),
    )


def case(rng: Random) -> Pair:
    """Pronoun case: subject forms before the verb, object forms after it."""
    first, second = rng.sample(sorted(lexicon.PRONOUNS), 2)
    verb = lexicon.past(rng.choice(rng.choice(grammar.SYMMETRIC).names))
    forms = lexicon.PRONOUNS
    where, when = rng.choice(grammar.places()), rng.choice(("", *lexicon.TIMES))
    return (
        grammar.sentence(forms[first][0], verb, forms[second][1], where, when),
        grammar.sentence(forms[second][1], verb, forms[first][0], where, when),
    )


def reflexive(rng: Random) -> Pair:
    """Reflexive binding: a reflexive agrees with the subject of its own clause."""
    gendered = [noun for noun in lexicon.NOUNS if noun.gender]
    subject = rng.choice(gendered)
    near = rng.choice([noun for noun in gendered if noun.gender != subject.gender])
    are_plural = rng.choice(((False, False), (False, True), (True, False)))
    both = list(zip((subject, near), are_plural, strict=True))
    start = "the {} near the {}".format(*(_number(noun, is_plural) for noun, is_plural in both))
    good, bad = (lexicon.PRONOUNS["they" if is_plural else noun.gender][2] for noun, is_plural in both)
    verb = lexicon.past(rng.choice(rng.choice(grammar.SYMMETRIC).names))
    where = rng.choice(grammar.places())
    return grammar.sentence(start, verb, good, where), grammar.sentence(start, verb, bad, where)


def arguments(rng: Random) -> Pair:
    """Argument structure: a transitive verb has an object, an intransitive one has none."""
    verb = rng.choice([verb for verb in grammar.SYMMETRIC if _needs_object(verb)] + [*grammar.INTRANSITIVE])
    person = _people(rng)
    first, second = f"the {person.names[0]}", f"the {_people(rng, person).names[0]}"
    said, place = lexicon.past(verb.names[0]), rng.choice(grammar.places())
    with_object = grammar.sentence(first, said, second, place)
    # The unused noun stays in the sentence, so the number of nouns does not reveal the label.
    without = grammar.sentence(first, "near", second, said, place)
    return (with_object, without) if verb.themes else (without, with_object)


def auxiliary(rng: Random) -> Pair:
    """Auxiliaries: each takes its own form of the verb."""
    verb = rng.choice([verb for verb in grammar.TRANSITIVE if verb.names[0] in lexicon.IRREGULAR_VERBS])
    event = grammar.some_event(rng, (verb,), time=0.0)
    name = verb.names[0]
    good, wrong = rng.choice(
        (
            (f"has {lexicon.participle(name)}", f"has {name}"),
            (f"did not {name}", f"did not {lexicon.past(name)}"),
            (f"will {name}", f"will {lexicon.past(name)}"),
        )
    )
    subject, rest = grammar.noun_phrase(event.agent), f"{grammar.objects(event)} {event.place}".strip()
    return grammar.sentence(subject, good, rest), grammar.sentence(subject, wrong, rest)


def gap(rng: Random) -> Pair:
    """Filler-gap dependencies: a question word needs a gap, and a gap needs a question word."""
    event = grammar.some_event(rng, [v for v in grammar.TRANSITIVE if _needs_object(v)], adjective=0.2, time=0.0)
    asking = "who" if event.verb.themes[0] in lexicon.ANIMATE else "what"
    said = f"did {grammar.noun_phrase(event.agent)} {event.verb.names[0]}"
    with_gap, filled = f"{said} {event.place}".strip(), f"{said} {grammar.objects(event)} {event.place}".strip()
    if rng.random() < 0.5:
        return grammar.sentence(asking, with_gap, end="?"), grammar.sentence(asking, filled, end="?")
    return grammar.sentence(filled, end="?"), grammar.sentence(with_gap, end="?")


def island(rng: Random) -> Pair:
    """Islands: extraction out of *said that* is acceptable, out of *smiled because* it is not."""
    event = grammar.some_event(rng, [verb for verb in grammar.TRANSITIVE if verb.themes != verb.agents])
    speaker = grammar.noun_phrase(grammar.some_phrase(rng, ("person",), "", event.agent))
    opening = "who" if event.verb.themes[0] in lexicon.ANIMATE else "what"
    inner = f"{grammar.noun_phrase(event.agent)} {lexicon.past(event.verb.names[0])}"
    bridge, barrier = rng.choice(("say that", "claim that", "think that")), rng.choice(("smile", "laugh", "shout"))
    good = grammar.sentence(opening, "did", speaker, bridge, inner, end="?")
    return good, grammar.sentence(opening, "did", speaker, barrier, "because", inner, end="?")


def polarity(rng: Random) -> Pair:
    """Negative polarity: *ever* needs a negative main subject; one inside a relative clause does not license it."""
    first = _people(rng)
    second = _people(rng, first)
    verb, relative = rng.choice(grammar.INTRANSITIVE).names[0], rng.choice(grammar.SYMMETRIC).names[0]
    rest = f"has ever {lexicon.participle(verb)} {rng.choice(grammar.places())}"
    good, bad = (
        f"{outer} {first.names[0]} that {inner} {second.names[0]} {lexicon.past(relative)}"
        for outer, inner in (("no", "the"), ("the", "no"))
    )
    return grammar.sentence(good, rest), grammar.sentence(bad, rest)


PHENOMENA: tuple[Callable[[Random], Pair], ...] = (
    agreement,
    adjective_order,
    determiner,
    selection,
    case,
    reflexive,
    arguments,
    auxiliary,
    gap,
    island,
    polarity,
)


def cola(rng: Random, label: int) -> dict[str, str]:
    """A sentence that is acceptable (label 1) or breaks one rule (0)."""
    good, bad = rng.choice(PHENOMENA)(rng)
    return {"sentence": good if label else bad}
