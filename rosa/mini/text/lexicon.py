"""The words of the mini scale: nouns, verbs, adjectives and phrases, with their forms, synonyms and hypernyms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A countable noun; ``names`` are synonyms, ``kind`` is its hypernym, which verbs select for."""

    names: tuple[str, ...]
    kind: str
    genre: str = ""
    """``town`` or ``country``; empty for both."""
    gender: str = ""
    """``he`` or ``she`` if the noun has a gender."""


@dataclass(frozen=True)
class Verb:
    """A verb by its base form; ``names`` are synonyms."""

    names: tuple[str, ...]
    themes: tuple[str, ...] = ()
    """Kinds of noun that it takes as its object; none for an intransitive verb."""
    agents: tuple[str, ...] = ("person",)
    """Kinds of noun that can be its subject."""
    hypernym: str = ""
    """A wider verb that it implies: who runs, moves."""


def _nouns(kind: str, genre: str, words: str, gender: str = "") -> tuple[Noun, ...]:
    return tuple(Noun(tuple(word.split("/")), kind, genre, gender) for word in words.split())


GENRES = ("town", "country")

NOUNS: tuple[Noun, ...] = (
    *_nouns("person", "town", "doctor/physician lawyer/attorney teacher/instructor student/pupil chef/cook"),
    *_nouns("person", "town", "pilot/aviator guard/sentry banker waiter/server nurse singer/vocalist judge/magistrate"),
    *_nouns("person", "country", "farmer/grower sailor/seaman shepherd/herder hunter miller ranger/warden gardener"),
    *_nouns("person", "", "boy/lad king/monarch uncle", "he"),
    *_nouns("person", "", "girl/lass queen aunt/auntie", "she"),
    *_nouns("animal", "town", "dog/hound cat/kitty rabbit/bunny parrot"),
    *_nouns("animal", "country", "horse/steed goat duck cow donkey/mule"),
    *_nouns("snack", "town", "cake/gateau sandwich pizza cookie/biscuit"),
    *_nouns("snack", "country", "apple carrot pear potato/spud"),
    *_nouns("vehicle", "town", "car/automobile bicycle/bike taxi/cab"),
    *_nouns("vehicle", "country", "tractor wagon/cart boat/ship"),
    *_nouns("instrument", "", "piano/keyboard violin/fiddle guitar flute drum"),
    *_nouns("garment", "", "coat/jacket hat/cap scarf/shawl shirt/blouse"),
)
HYPERNYMS: dict[str, Noun] = {
    kind: Noun((kind,), kind) for kind in ("person", "animal", "snack", "vehicle", "instrument", "garment")
}
ANIMATE = ("person", "animal")
THINGS = ("snack", "vehicle", "instrument", "garment")


def _verbs(
    words: str, themes: tuple[str, ...] = (), agents: tuple[str, ...] = ("person",), hypernym: str = ""
) -> tuple[Verb, ...]:
    return tuple(Verb(tuple(word.split("/")), themes, agents, hypernym) for word in words.split())


VERBS: tuple[Verb, ...] = (
    *_verbs("laugh/chuckle smile/grin work/toil"),
    *_verbs("sleep/doze wait", agents=ANIMATE),
    *_verbs("run walk/stroll swim crawl/creep", agents=ANIMATE, hypernym="move"),
    *_verbs("shout/yell whisper mutter/mumble", hypernym="speak"),
    *_verbs("help/assist follow/trail see/notice like/adore fear/dread avoid/shun", ANIMATE, ANIMATE),
    *_verbs("greet/welcome visit praise/commend thank call/phone scold/rebuke blame admire/respect", ("person",)),
    *_verbs("buy/purchase sell lose/misplace hide/conceal", THINGS),
    *_verbs("find", THINGS, ANIMATE),
    *_verbs("fix/repair break/damage clean/wash", ("vehicle", "instrument")),
    *_verbs("eat/devour want/desire", ("snack",), ANIMATE),
    *_verbs("bake", ("snack",)),
    *_verbs("drive/steer rent/hire", ("vehicle",)),
    *_verbs("play", ("instrument",)),
    *_verbs("wear", ("garment",)),
)
DATIVE_VERBS: tuple[Verb, ...] = _verbs("give/hand send/mail show lend/loan", THINGS)
"""Verbs that take a person as a recipient beside their object."""
OBJECT_OPTIONAL: tuple[str, ...] = (
    *("help", "follow", "see", "visit", "call", "buy", "sell", "lose", "hide", "find", "break", "clean"),
    *("eat", "bake", "drive", "play"),
)
"""Transitive verbs (by their first name) whose object is optional: *did the nurse eat?* is acceptable."""
HYPERNYM_VERBS: dict[str, Verb] = {word: Verb((word,), (), ANIMATE) for word in ("move", "speak")}

ANIMATE_ADJECTIVES: tuple[tuple[str, ...], ...] = (
    ("big", "large"),
    ("small", "little"),
    ("happy", "glad"),
    ("sad", "unhappy"),
    ("angry", "furious"),
    ("old", "elderly"),
    ("young", "youthful"),
    ("brave", "bold"),
    ("shy", "timid"),
)
THING_ADJECTIVES: tuple[tuple[str, ...], ...] = (
    ("big", "large"),
    ("small", "little"),
    ("new",),
    ("cheap", "inexpensive"),
    ("red", "crimson"),
    ("green", "emerald"),
    ("heavy",),
)
PLACES: dict[str, tuple[str, ...]] = {
    "town": ("in the kitchen", "in the park", "at the station", "at the market", "in the library", "at the museum"),
    "country": ("in the barn", "in the field", "near the river", "at the harbor", "in the forest", "on the hill"),
}
TIMES: tuple[str, ...] = ("yesterday", "today", "on Monday", "on Friday", "last night", "this morning")

IRREGULAR_PLURALS = {"person": "people", "seaman": "seamen", "scarf": "scarves"}
IRREGULAR_VERBS = {
    "shun": ("shunned", "shunned"),
    "grin": ("grinned", "grinned"),
    "creep": ("crept", "crept"),
    "sleep": ("slept", "slept"),
    "run": ("ran", "run"),
    "swim": ("swam", "swum"),
    "speak": ("spoke", "spoken"),
    "see": ("saw", "seen"),
    "buy": ("bought", "bought"),
    "lose": ("lost", "lost"),
    "hide": ("hid", "hidden"),
    "find": ("found", "found"),
    "sell": ("sold", "sold"),
    "break": ("broke", "broken"),
    "eat": ("ate", "eaten"),
    "drive": ("drove", "driven"),
    "wear": ("wore", "worn"),
    "give": ("gave", "given"),
    "send": ("sent", "sent"),
    "show": ("showed", "shown"),
    "lend": ("lent", "lent"),
}
"""Base form -> (past, participle)."""

FILM_TOPICS = ("film", "movie", "plot", "story", "acting", "music", "ending", "script", "dialogue", "cast")
PRAISE = (
    *("good", "great", "wonderful", "brilliant", "charming", "funny", "gripping", "clever", "fresh", "superb"),
    *("delightful", "splendid", "moving", "witty", "elegant", "warm", "vivid", "graceful", "inspired", "touching"),
    *("lovely", "thrilling", "masterful", "radiant", "subtle"),
)
REPROACH = (
    *("bad", "terrible", "dull", "boring", "clumsy", "tedious", "awful", "stale", "silly", "lifeless", "dreadful"),
    *("shallow", "bland", "sloppy", "tiresome", "hollow", "pointless", "dreary", "crude", "messy", "weak"),
    *("annoying", "forgettable", "joyless", "limp"),
)

PRONOUNS = {"he": ("he", "him", "himself"), "she": ("she", "her", "herself"), "they": ("they", "them", "themselves")}
"""Pronoun -> (subject, object, reflexive)."""


def plural(noun: str) -> str:
    """The plural of a noun."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith(("ch", "sh", "s", "x", "to")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def third_person(verb: str) -> str:
    """The present tense in the third person singular."""
    if verb.endswith(("ch", "sh", "s", "x")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def past(verb: str) -> str:
    """The simple past of a base form."""
    if verb in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[verb][0]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


def participle(verb: str) -> str:
    """The past participle of a base form."""
    return IRREGULAR_VERBS[verb][1] if verb in IRREGULAR_VERBS else past(verb)


def with_article(phrase: str) -> str:
    """The phrase after *a* or *an*."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
