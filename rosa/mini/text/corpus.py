"""Pretraining text: short paragraphs of acceptable sentences, and their vocabulary."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from random import Random

from rosa.mini.text import acceptability, grammar, inference, lexicon, paraphrase, pronouns, sentiment
from rosa.mini.text.paragraphs import drawn
from rosa.mini.text.tasks import belongs_to_evaluation


def _told_again(rng: Random) -> list[str]:
    """An event, stated twice in different words."""
    event = paraphrase.paraphrased_event(rng)
    return [grammar.said_somehow(rng, event) for _ in range(2)]


def _asked_again(rng: Random) -> list[str]:
    """A question and its paraphrase."""
    return list(paraphrase.qqp(rng, label=1).values())


def _answered(rng: Random) -> list[str]:
    """A question and its answer."""
    return list(inference.qnli(rng, label=0).values())


def _followed(rng: Random) -> list[str]:
    """A statement and one that it entails."""
    return list(inference.mnli(rng, inference.ENTAILMENT, rng.choice(lexicon.GENRES)).values())


def _retold(rng: Random) -> list[str]:
    """A passage of two clauses, and a sentence that it entails."""
    return list(inference.rte(rng, label=0).values())


def _because(rng: Random) -> list[str]:
    """A sentence with a pronoun, and its reason clause with the pronoun resolved."""
    return list(pronouns.wnli(rng, label=1).values())


def _agreed(rng: Random) -> list[str]:
    """Two plain opinions that agree, which tell words of praise from words of reproach."""
    positive = rng.random() < 0.5
    topics = rng.sample(lexicon.FILM_TOPICS, 2)
    return [grammar.sentence(sentiment.opinion(rng, positive, topic)) for topic in topics]


def _defined(rng: Random) -> list[str]:
    """An entry of a glossary: a word, by a synonym or its hypernym."""
    kind, (first, second) = rng.choice(GLOSSARY)
    said: Callable[[str], str] = {"noun": lexicon.with_article, "verb": "to {}".format}.get(kind, "to be {}".format)
    return [grammar.sentence(said(first), rng.choice(("is", "is just", "is always")), said(second))]


def _glossary() -> tuple[tuple[str, tuple[str, str]], ...]:
    """Kind of word, the word, and its synonym (in either order) or its hypernym."""
    adjectives = dict.fromkeys((*lexicon.ANIMATE_ADJECTIVES, *lexicon.THING_ADJECTIVES))
    alike = [("noun", noun.names) for noun in lexicon.NOUNS]
    alike += [("verb", verb.names) for verb in (*lexicon.VERBS, *lexicon.DATIVE_VERBS)]
    alike += [("adjective", names) for names in adjectives]
    found = [(kind, pair) for kind, names in alike for pair in itertools.permutations(names, 2)]
    found += [("noun", (name, noun.kind)) for noun in lexicon.NOUNS for name in noun.names]
    found += [("verb", (name, verb.hypernym)) for verb in lexicon.VERBS if verb.hypernym for name in verb.names]
    return tuple(found)


GLOSSARY = _glossary()


def _acceptable(rng: Random) -> list[str]:
    return [rng.choice(acceptability.PHENOMENA)(rng)[0]]


PARAGRAPHS: tuple[Callable[[Random], list[str]], ...] = (
    _told_again,
    _told_again,
    _asked_again,
    _answered,
    _followed,
    _followed,
    _retold,
    _because,
    _defined,
    sentiment.verdict,
    sentiment.verdict,
    _agreed,
    _agreed,
    _acceptable,
    _acceptable,
)
"""The kinds of paragraph; each is drawn with a probability proportional to its number of entries."""


def _paragraph(rng: Random) -> tuple[str, ...]:
    """A paragraph that is not an evaluation example, neither as a whole nor in one of its sentences."""
    make = rng.choice(PARAGRAPHS)
    while True:
        # A sentence repeated word for word would only teach copying.
        sentences = tuple(dict.fromkeys(make(rng)))
        if not any(belongs_to_evaluation(texts) for texts in (sentences, *((text,) for text in sentences))):
            return sentences


FUNCTION_WORDS = (
    "the a an no not every each this these many several and but although because that near behind like likes "
    "did has will ever by to was is were "
    "who what where when which in place at time . , ? "
    "never hardly far from anything always nothing seems nobody everybody would call critics called right wrong "
    "say claim think before after while just be it true false"
)


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary() -> list[str]:
    """Every word and punctuation mark that the grammar can make, in lower case and in alphabetical order."""
    made: list[str] = [*lexicon.TIMES, *grammar.places(), *lexicon.FILM_TOPICS, *lexicon.PRAISE, *lexicon.REPROACH]
    made += [FUNCTION_WORDS, *sentiment.DEGREES, *inference.FACTIVE, *inference.NOT_FACTIVE]
    made += [*inference.IMPLIED, *inference.DENIED]
    for noun in (*lexicon.NOUNS, *lexicon.HYPERNYMS.values()):
        made += noun.names
    made += [lexicon.plural(noun.names[0]) for noun in grammar.nouns(("person",))]
    for adjective in (*lexicon.ANIMATE_ADJECTIVES, *lexicon.THING_ADJECTIVES):
        made += adjective
    for verb in (*lexicon.VERBS, *lexicon.DATIVE_VERBS, *lexicon.HYPERNYM_VERBS.values()):
        made += [form for name in verb.names for form in (name, lexicon.past(name))]
    for verb in (*lexicon.VERBS, *lexicon.DATIVE_VERBS):
        made += [lexicon.participle(name) for name in verb.names]
    for pronoun in lexicon.PRONOUNS.values():
        made += pronoun
    made += [lexicon.third_person(verb.names[0]) for verb in grammar.INTRANSITIVE]
    for verb_name, reasons in pronouns.REASONS.items():
        made += [verb_name, *itertools.chain(*reasons)]
    return sorted(set(words(" ".join(made))))


@functools.cache
def corpus(size: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Paragraphs of one or two sentences, with at least ``size`` sentences in total.

    The sentences of a paragraph are about the same event. As in edited prose, all are acceptable and none contradicts
    another; there are no labels. Possible examples of the evaluation splits are excluded: their pairs, in either order,
    and their single sentences. Training examples can occur, as in any pretraining corpus.

    Raises:
        DataError: a size below 1.
    """
    return drawn(size, Random(f"corpus/{seed}"), _paragraph)
