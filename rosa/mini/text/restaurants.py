"""Mini E2E: facts about invented restaurants, and several descriptions of each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from random import Random
from typing import Any

from rosa.errors import DataError
from rosa.mini.text.checks import check_request, check_size
from rosa.mini.text.descriptions import SLOTS, WORDINGS, describe
from rosa.mini.text.tasks import ATTEMPTS, EVALUATION_SHARE, place_of

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")
REFERENCES = {"train": (2, 4), "validation": (4, 6), "test": (4, 6)}
"""Fewest and most descriptions of one restaurant."""
FEWEST_SLOTS = 3

CONSONANTS, VOWELS = "BDFGHJKLMNPRSTVW", "aeiou"
CLOSINGS = ("l", "m", "n", "r", "s", "nd", "rk")
MIDDLES = ("", "a", "e", "i", "o", "en", "il", "ar")
ENDINGS = ("ford", "wick", "dine", "mont", "stead", "vale", "by", "lo", "ra", "no", "ven", "more", "ley", "tin", "gate")
NAME_FORMS = ("{}", "{}", "The {}", "{} House", "{} Kitchen", "Café {}", "{}'s", "The {} Table", "Old {}")
LANDMARKS = ("Station", "Library", "Museum", "Bridge", "Theatre", "Chapel", "Baths", "Park")


def _word(rng: Random) -> str:
    """One of about ten thousand invented proper names; few occur in training, so a model has to copy them."""
    beginning = rng.choice(CONSONANTS) + rng.choice(VOWELS) + rng.choice(CLOSINGS)
    return beginning + rng.choice(MIDDLES) + rng.choice(ENDINGS)


def restaurant(rng: Random) -> dict[str, str]:
    """A random restaurant as slot -> value, in the order of ``SLOTS``; always has a name."""
    others = SLOTS[1:]
    chosen = rng.sample(others, rng.randint(FEWEST_SLOTS, len(SLOTS)) - 1)
    facts = {"name": rng.choice(NAME_FORMS).format(_word(rng))}
    for slot in others:
        if slot in chosen:
            values = WORDINGS.get(slot)
            facts[slot] = rng.choice(sorted(values)) if values else f"{_word(rng)} {rng.choice(LANDMARKS)}"
    return facts


def meaning_representation(facts: Mapping[str, str]) -> str:
    """Format facts as E2E does: ``name[Fenford], food[Greek]``."""
    return ", ".join(f"{slot}[{value}]" for slot, value in facts.items())


def split_of(meaning: str) -> str:
    """The only split that may contain this meaning representation; pretraining text is limited to those of train."""
    place = place_of([meaning])
    if place >= EVALUATION_SHARE:
        return "train"
    return "validation" if place >= EVALUATION_SHARE / 2 else "test"


def _new(rng: Random, split: str, seen: set[str]) -> dict[str, str] | None:
    """A restaurant of this split whose meaning representation has not been seen; None if no new one is found."""
    for _ in range(ATTEMPTS):
        facts = restaurant(rng)
        meaning = meaning_representation(facts)
        if meaning not in seen and split_of(meaning) == split:
            seen.add(meaning)
            return facts
    return None


def descriptions(rng: Random, facts: Mapping[str, str], fewest: int, most: int) -> list[str]:
    """Different descriptions of one restaurant, each with all of its facts."""
    wanted = rng.randint(fewest, most)
    found: dict[str, None] = {}
    while len(found) < wanted:
        found[describe(rng, facts)] = None
    return list(found)


def examples(split: str, size: int, seed: int) -> list[Row]:
    """Meaning representations and their descriptions, with the columns of the hub's E2E.

    A hash of the meaning representation decides its split, so the splits are disjoint for all sizes and seeds. Within a
    split, meaning representations are unique, and so are the descriptions of each. A smaller ``size`` gives the first
    rows of a larger one.

    Args:
        split: ``train``, ``validation`` or ``test``.
        size: number of meaning representations; the rows of each are consecutive.
        seed: of the random draws.

    Raises:
        DataError: an unknown split, a size below 1, or more restaurants than the grammar has.
    """
    check_request("e2e", split, SPLITS, size)
    rng = Random(f"e2e/{split}/{seed}")
    seen: set[str] = set()
    rows: list[Row] = []
    for _ in range(size):
        facts = _new(rng, split, seen)
        if facts is None:
            raise DataError(f"size={size}: e2e {split} has no more than about {len(seen)} different restaurants")
        meaning = meaning_representation(facts)
        for text in descriptions(rng, facts, *REFERENCES[split]):
            rows.append({"meaning_representation": meaning, "human_reference": text})
    return rows


@functools.cache
def corpus(size: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Paragraphs to pretrain on, with at least ``size`` descriptions in total; a paragraph describes one restaurant.

    They contain no meaning representations, and no restaurant that an evaluation split may have.

    Raises:
        DataError: a size below 1, or more restaurants than the grammar has.
    """
    check_size(size)
    rng = Random(f"restaurants/{seed}")
    seen: set[str] = set()
    paragraphs: list[tuple[str, ...]] = []
    written = 0
    while written < size:
        facts = _new(rng, "train", seen)
        if facts is None:
            raise DataError(f"size={size}: no more than about {written} descriptions of different restaurants")
        paragraphs.append(tuple(descriptions(rng, facts, *REFERENCES["train"])))
        written += len(paragraphs[-1])
    return tuple(paragraphs)
