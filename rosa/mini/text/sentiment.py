"""Mini SST-2: opinions on films, with negation, hedges and contrast between two opinions."""

from __future__ import annotations

from random import Random

from rosa.mini.text import grammar, lexicon

NEGATIONS = ("is not", "is hardly", "is far from", "is anything but", "is never")
ASSERTIONS = ("is", "is always", "is nothing but", "seems")
DEGREES = ("very", "really", "truly")
FORMS = ("alone", "and", "and", "but", "but", "although")
"""How a review joins its opinions, each as often as it stands here."""
TAKES_DEGREE = ("is", "is not", "seems")


def opinion(rng: Random, positive: bool, topic: str) -> str:
    """A clause on one topic; a negation reverses its adjective's polarity."""
    negated = rng.random() < 0.1
    adjective, another = rng.sample(lexicon.PRAISE if positive != negated else lexicon.REPROACH, 2)
    if rng.random() < 0.2:
        return f"{'nobody' if negated else 'everybody'} would call the {topic} {adjective}"
    if rng.random() < 0.2:
        judged = "wrong" if negated else "right"
        return f"critics called the {topic} {adjective} and were {judged}"
    linked = rng.choice(NEGATIONS if negated else ASSERTIONS)
    degree = f"{rng.choice(DEGREES)} " if linked in TAKES_DEGREE and rng.random() < 0.4 else ""
    # Not after a negation, whose scope could be read as the first adjective only.
    and_another = f" and {another}" if not negated and rng.random() < 0.6 else ""
    return f"the {topic} {linked} {degree}{adjective}{and_another}"


def review(rng: Random, positive: bool) -> str:
    """One opinion, or two of which the main clause, or the one after *but*, decides the label."""
    first, second = rng.sample(lexicon.FILM_TOPICS, 2)
    main = opinion(rng, positive, first)
    form = rng.choice(FORMS)
    if form == "alone":
        return grammar.sentence(main)
    if form == "and":
        return grammar.sentence(main, "and", opinion(rng, positive, second))
    conceded = opinion(rng, not positive, second)
    if form == "but":
        return grammar.sentence(f"{conceded}, but", main)
    if rng.random() < 0.5:
        return grammar.sentence(f"although {conceded},", main)
    return grammar.sentence(f"{main}, although", conceded)


def sst2(rng: Random, label: int) -> dict[str, str]:
    """A review that is positive (label 1) or negative (0)."""
    return {"sentence": review(rng, bool(label))}


def verdict(rng: Random) -> list[str]:
    """A review, and what it comes to in one plain opinion."""
    positive = rng.random() < 0.5
    adjective = rng.choice(lexicon.PRAISE if positive else lexicon.REPROACH)
    summed = grammar.sentence(f"the {rng.choice(('film', 'movie'))} is {adjective}")
    return [review(rng, positive), summed]
