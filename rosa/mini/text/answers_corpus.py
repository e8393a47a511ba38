"""Pretraining text for the mini tasks of answers: it has their numbers, brackets and SQL, and none of their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from random import Random

from rosa.mini.text import restaurants
from rosa.mini.text.answers import FACTS, SAID, TEXTS, VALUES, selection, step
from rosa.mini.text.paragraphs import drawn
from rosa.mini.text.restaurants import meaning_representation

OWNERS = ("school", "library", "museum", "farm", "hotel", "bakery")
"""Owners in the stories; those of the word problems are restaurants."""
OWNED = ("books", "chairs", "rooms", "tickets", "plants", "lamps")
ENDS = {"+": "It has {} {} then.", "-": "So {} {} are left.", "*": "The other has {} {}."}
"""Last sentence of a story, by the sign of its step."""
SUMS = (2, 4)
"""Fewest and most steps of arithmetic in a row."""
ACTS = ("recommend", "confirm", "request", "offer")
"""Dialogue acts of the records; the meaning representations of the tasks only have ``inform``."""
TABLES = {"hotel": "hotels", "museum": "museums", "bakery": "bakeries", "farm": "farms", "school": "schools"}
"""Name of one row -> name of the table; the tables of the tasks have other names."""
QUERY_WORDS = {
    "MAX": "highest",
    "MIN": "lowest",
    "AVG": "average",
    "=": "is",
    ">": "is above",
    "<": "is below",
}
"""As ``QUERY_WORDS`` of the tasks, in other words."""


def _place(rng: Random) -> list[str]:
    """A record of a restaurant, its slots in brackets, and descriptions."""
    facts = _facts(rng)
    return [f"{rng.choice(ACTS)}({meaning_representation(facts)})", *restaurants.descriptions(rng, facts, 1, 2)]


def _facts(rng: Random) -> dict[str, str]:
    """Facts about a restaurant that no evaluation split may have."""
    while True:
        whole = restaurants.restaurant(rng)
        kept = {"name", *rng.sample(SAID, rng.randint(*FACTS))}
        facts = {slot: value for slot, value in whole.items() if slot in kept}
        if len(facts) > 1 and restaurants.split_of(meaning_representation(facts)) == "train":
            return facts


def _story(rng: Random) -> list[str]:
    """Something that is counted before and after."""
    taken, what = step(rng), rng.choice(OWNED)
    end = ENDS[taken.sign].format(taken.number, what)
    return [f"The {rng.choice(OWNERS)} has {taken.have} {what} and {taken.event}. {end}"]


def _sums(rng: Random) -> list[str]:
    """A section of a book of tables, with its number."""
    return [f"#### {rng.randint(1, 36)}. {', '.join(str(step(rng)) for _ in range(rng.randint(*SUMS)))}."]


def _table(rng: Random) -> list[str]:
    """The statements that make a table and ask it something, and what is found, in a sentence."""
    one, table = rng.choice(sorted(TABLES.items()))
    made = selection(rng, table, QUERY_WORDS)
    value = rng.choice(TEXTS[made.what]) if made.what in TEXTS else rng.randint(*VALUES)
    return [f"{made.table}; {made.query};", f"The {made.what} of the {one} {made.where} is {value}."]


PARAGRAPHS: tuple[Callable[[Random], list[str]], ...] = (_place, _place, _place, _table, _table, _story, _sums)
"""The kinds of paragraph; each is drawn with a probability proportional to its number of entries."""


@functools.cache
def corpus(size: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Paragraphs to pretrain on, with at least ``size`` texts in total.

    They have the words, numbers and signs of the tasks, but no question, and no answer to one: stories are about other
    owners, records do not inform, and queries ask other tables. No restaurant that an evaluation split may have occurs.

    Raises:
        DataError: a size below 1.
    """
    return drawn(size, Random(f"answers/{seed}"), lambda rng: rng.choice(PARAGRAPHS)(rng))
