"""Mini WNLI: pronoun resolution that needs the meaning of the sentence."""

from __future__ import annotations

from random import Random

from rosa.mini.text import grammar, lexicon

REASONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "thanked": (("was grateful", "wanted to be polite"), ("had helped", "had been kind")),
    "praised": (("wanted a favor", "was impressed"), ("had worked hard", "had won the race")),
    "blamed": (("was unfair", "needed an excuse"), ("had made the mistake", "had broken the window")),
    "hired": (("needed help", "had too much work"), ("had the right skills", "was looking for a job")),
    "followed": (("was lost", "did not know the way"), ("knew the way", "had the map")),
    "called": (("wanted advice", "needed an answer"), ("had the answer", "gave good advice")),
    "visited": (("was bored", "wanted company"), ("was ill", "had a new house")),
    "feared": (("was a coward", "had a guilty secret"), ("was cruel", "had a sharp knife")),
    "paid": (("owed money", "kept the promise"), ("had finished the job", "had sold the house")),
    "envied": (("was poor", "had lost the race"), ("was rich", "had a better life")),
}
"""Verb -> reasons that lie with its subject, and reasons that lie with its object."""


def sentence_and_referents(rng: Random) -> tuple[str, str, str, str]:
    """A sentence with a pronoun, its reason clause, the pronoun's referent, and the other candidate."""
    people = [noun for noun in lexicon.NOUNS if noun.kind == "person" and not noun.gender]
    subject, target = (f"the {noun.names[0]}" for noun in rng.sample(people, 2))
    verb = rng.choice(sorted(REASONS))
    lies_with_object = rng.random() < 0.5
    reason = rng.choice(REASONS[verb][lies_with_object])
    meant, not_meant = (target, subject) if lies_with_object else (subject, target)
    pronoun = rng.choice(("he", "she"))
    # The participles of all ten verbs equal the simple past.
    main = f"{target} was {verb} by {subject}" if rng.random() < 0.3 else f"{subject} {verb} {target}"
    return grammar.sentence(main, "because", pronoun, reason), reason, meant, not_meant


def wnli(rng: Random, label: int) -> dict[str, str]:
    """A sentence, and its reason with the pronoun replaced by the right (label 1) or the wrong referent (0)."""
    text, reason, meant, not_meant = sentence_and_referents(rng)
    return {"sentence1": text, "sentence2": grammar.sentence(meant if label else not_meant, reason)}
