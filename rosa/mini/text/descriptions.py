"""Wordings of a restaurant's facts, combined into descriptions with random words, order and grouping.

Every description contains every fact, and no two values of a fact share a wording, so a description identifies its
facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rosa.mini.text import grammar, lexicon


@dataclass(frozen=True)
class Wording:
    """The wordings of one fact in each part of a sentence; ``{}`` is its value."""

    clauses: tuple[str, ...]
    """After the subject: *serves Greek food*."""
    adjectives: tuple[str, ...] = ()
    """Before the noun: *cheap*."""
    belongings: tuple[str, ...] = ()
    """After *with*: *low prices*."""
    places: tuple[str, ...] = ()
    """Adverbial: *in the old town*."""


FOOD = Wording(
    ("serves {} food", "offers {} dishes", "has a {} menu", "cooks {} meals"),
    adjectives=("{}",),
    belongings=("{} food", "a {} menu", "{} dishes"),
)
AREA = Wording(("is in the {}", "lies in the {}", "can be found in the {}"), places=("in the {}", "in the {} area"))
NEAR = Wording(
    ("is near {}", "lies close to {}", "is not far from {}"), places=("near {}", "close to {}", "not far from {}")
)
PRICES = Wording(("charges {}", "has meals for {}", "asks {} for a meal"), belongings=("meals for {}",))
STARS = Wording(("has {} from its guests", "was given {}", "is rated with {}"), belongings=("{}", "{} from its guests"))


def judged(rating: str) -> Wording:
    """The wording of a rating in one word."""
    return Wording(
        (f"has a {rating} rating", f"is rated as {rating}", f"is {rating} in the eyes of its guests"),
        belongings=(f"a {rating} rating", f"{rating} reviews"),
    )


WORDINGS: dict[str, dict[str, Wording]] = {
    "eatType": dict.fromkeys(
        ("tavern", "bistro", "tea room", "canteen", "brasserie", "snack bar"), Wording(("is a {}", "is run as a {}"))
    ),
    # with_article recognizes only lower-case initial vowels, so no food begins with a capital vowel.
    "food": dict.fromkeys(("Greek", "Thai", "Mexican", "Polish", "Lebanese", "Peruvian", "vegan", "Basque"), FOOD),
    "priceRange": {
        "low": Wording(("has low prices", "is cheap"), adjectives=("cheap", "low-priced"), belongings=("low prices",)),
        "average": Wording(
            ("has average prices", "is moderately priced"),
            adjectives=("mid-priced",),
            belongings=("average prices",),
        ),
        "steep": Wording(
            ("has steep prices", "is expensive"), adjectives=("expensive", "costly"), belongings=("steep prices",)
        ),
        **dict.fromkeys(("under £12", "£12-18", "over £18"), PRICES),
    },
    "customer rating": {
        **{rating: judged(rating) for rating in ("poor", "decent", "superb")},
        **dict.fromkeys(("2 stars", "3 stars", "5 stars"), STARS),
    },
    "area": dict.fromkeys(("old town", "harbour", "market square", "university quarter"), AREA),
    "familyFriendly": {
        "yes": Wording(
            ("is family-friendly", "welcomes children", "is a good choice for families"),
            adjectives=("family-friendly", "child-friendly"),
            belongings=("room for children",),
        ),
        "no": Wording(
            ("is not family-friendly", "does not welcome children", "is no place for families"),
            adjectives=("adults-only",),
        ),
    },
}
"""Slot -> value -> wording, for the slots with few values."""
SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
"""In the order of a meaning representation."""

ANY_TYPE = ("place", "spot", "venue")
"""Nouns for a restaurant whose type is not among its facts."""
IN_OPENING = 4
"""Maximum number of facts in the first sentence, besides name and type."""


def wording(slot: str, value: str) -> Wording:
    """The wording of a fact."""
    return NEAR if slot == "near" else WORDINGS[slot][value]


def listed(parts: Sequence[str]) -> str:
    """Join parts as *a*, *a and b*, or *a, b and c*."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def describe(rng: Random, facts: Mapping[str, str]) -> str:
    """One or more sentences that state every fact, including the name."""
    name = facts["name"]
    noun = facts.get("eatType") or rng.choice(ANY_TYPE)
    slots = [slot for slot in facts if slot not in ("name", "eatType")]
    rng.shuffle(slots)
    count = rng.randint(1, min(IN_OPENING, len(slots)))
    sentences = [_opening(rng, facts, noun, slots[:count])]
    left = slots[count:]
    while left:
        count = rng.randint(1, min(3, len(left)))
        subject = rng.choice(("it", f"the {noun}", name))
        sentences.append(grammar.sentence(subject, listed([_clause(rng, facts, slot) for slot in left[:count]])))
        left = left[count:]
    return " ".join(sentences)


def _clause(rng: Random, facts: Mapping[str, str], slot: str) -> str:
    return rng.choice(wording(slot, facts[slot]).clauses).format(facts[slot])


def _opening(rng: Random, facts: Mapping[str, str], noun: str, slots: Sequence[str]) -> str:
    """The sentence that introduces the restaurant, with some of its facts."""
    name = facts["name"]
    if rng.random() < 0.2:
        known = ["eatType"] if "eatType" in facts else []
        return grammar.sentence(name, listed([_clause(rng, facts, slot) for slot in (*known, *slots)]))
    parts: dict[str, list[str]] = {"adjectives": [], "belongings": [], "places": []}
    for slot in slots:
        said = wording(slot, facts[slot])
        part = rng.choice([part for part in parts if getattr(said, part)])
        phrase = rng.choice(getattr(said, part)).format(facts[slot])
        # The food is the adjective next to the noun: a cheap Greek tavern.
        parts[part].insert(len(parts[part]) if slot == "food" else 0, phrase)
    described = lexicon.with_article(" ".join([*parts["adjectives"], noun]))
    placed = " ".join(parts["places"])
    owned = f"with {listed(parts['belongings'])}" if parts["belongings"] else ""
    called = f"{described} {rng.choice(('called', 'named'))} {name}"
    form = rng.choice(("front", "is", "is", "there", "there", "last"))
    if form == "front" and placed:
        return grammar.sentence(f"{placed},", rng.choice((f"{name} is {described}", f"there is {called}")), owned)
    if form == "there":
        return grammar.sentence("there is", called, placed, owned)
    if form == "last":
        return grammar.sentence(described, placed, owned, "is", name)
    return grammar.sentence(name, "is", described, placed, owned)
