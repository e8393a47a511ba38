"""Generated restaurants: disjoint splits, descriptions with every fact, no test restaurant in pretraining text."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby
from random import Random

import pytest

from rosa.mini.text import descriptions, restaurants
from rosa.mini.text.descriptions import SLOTS, WORDINGS, describe
from rosa.mini.text.restaurants import REFERENCES, SPLITS, corpus, examples

SIZE = 250
NUMBER_OF_VALUES = {"eatType": 6, "food": 8, "priceRange": 6, "customer rating": 6, "area": 4, "familyFriendly": 2}


def facts_of(meaning: str) -> dict[str, str]:
    """Parse E2E's documented format, independently of the code that writes it."""
    return dict(re.findall(r"(?:^|, )([^\[\]]+)\[([^\[\]]+)\]", meaning))


@pytest.fixture(scope="module")
def splits() -> dict[str, list[restaurants.Row]]:
    return {split: examples(split, SIZE, seed=0) for split in SPLITS}


def test_rows_have_the_hubs_columns_and_those_of_one_meaning_stand_together(splits) -> None:
    for split, rows in splits.items():
        assert {tuple(row) for row in rows} == {("meaning_representation", "human_reference")}
        groups = [[*rows] for _, rows in groupby(rows, key=lambda row: row["meaning_representation"])]
        assert len(groups) == SIZE == len({group[0]["meaning_representation"] for group in groups})
        fewest, most = REFERENCES[split]
        assert {len(group) for group in groups} == set(range(fewest, most + 1))
        for group in groups:
            assert len({row["human_reference"] for row in group}) == len(group)


def test_meanings_have_three_to_eight_slots_in_e2es_order(splits) -> None:
    slots_seen, values_seen = set(), defaultdict(set)
    for row in splits["train"]:
        facts = facts_of(row["meaning_representation"])
        assert ", ".join(f"{slot}[{value}]" for slot, value in facts.items()) == row["meaning_representation"]
        assert "name" in facts
        assert [*facts] == [slot for slot in SLOTS if slot in facts]
        slots_seen.add(len(facts))
        for slot, value in facts.items():
            values_seen[slot].add(value)
    assert slots_seen == set(range(3, 9))
    assert {slot: len(values_seen[slot]) for slot in NUMBER_OF_VALUES} == NUMBER_OF_VALUES


def test_splits_share_no_meaning_whatever_their_seeds_and_most_test_names_are_new(splits) -> None:
    by_split = {
        split: {row["meaning_representation"] for seed in range(2) for row in examples(split, SIZE, seed)}
        for split in SPLITS
    }
    for one in SPLITS:
        for other in SPLITS:
            if one != other:
                assert not by_split[one] & by_split[other]
    names = {split: {facts_of(meaning)["name"] for meaning in by_split[split]} for split in SPLITS}
    assert len(names["test"] - names["train"]) > 0.8 * len(names["test"])


def test_no_description_of_an_evaluation_split_is_in_the_text_to_pretrain_on_or_in_the_training_rows(splits) -> None:
    read = {text for paragraph in corpus(6000, 0) for text in paragraph}
    read |= {row["human_reference"] for row in splits["train"]}
    for split in ("validation", "test"):
        assert not read & {row["human_reference"] for row in splits[split]}


def test_the_text_to_pretrain_on_holds_several_descriptions_of_a_place_and_no_meaning() -> None:
    text = corpus(1000, seed=3)
    assert sum(len(paragraph) for paragraph in text) in range(1000, 1000 + REFERENCES["train"][1])
    for paragraph in text:
        assert len(set(paragraph)) == len(paragraph) >= 2
        assert not re.search(r"[\[\]]", " ".join(paragraph))
    assert corpus(400, seed=3) == text[: len(corpus(400, seed=3))]
    assert corpus(1000, seed=4) != text


def test_rows_depend_on_the_seed_alone_and_fewer_are_the_first_of_many(splits) -> None:
    first = examples("test", 40, seed=0)
    assert splits["test"][: len(first)] == first
    assert examples("test", 40, seed=1) != first


def test_a_description_says_every_fact_and_no_other() -> None:
    """Every phrase of every value is looked for in the text: those of the facts are there, no others are."""
    rng = Random(0)
    said: dict[tuple[str, str], re.Pattern[str]] = {}
    for slot in NUMBER_OF_VALUES.keys() - {"eatType"}:
        for value, wording in WORDINGS[slot].items():
            phrases = (*wording.clauses, *wording.adjectives, *wording.belongings, *wording.places)
            # Denied, a phrase says the other value.
            either = "|".join(re.escape(phrase.format(value)) for phrase in phrases)
            said[slot, value] = re.compile(rf"(?<![\w-])(?<!not )({either})(?![\w-])", re.IGNORECASE)
    for row in examples("validation", 150, seed=5):
        facts = facts_of(row["meaning_representation"])
        for _ in range(3):
            text = describe(rng, facts)
            assert facts["name"] in text
            for slot in ("eatType", "near"):
                assert facts.get(slot, "") in text
            for (slot, value), pattern in said.items():
                assert bool(pattern.search(text)) == (facts.get(slot) == value), (slot, value, text)


def test_sentences_are_written_as_sentences() -> None:
    for paragraph in corpus(3000, seed=1):
        for text in paragraph:
            assert text[0].isupper()
            assert text.endswith(".")
            assert not re.search(r"  | [.,]|\.\.|\bA [aeiou]|\ba [aeiouAEIOU]|\ban [^aeiou]|[{}]", text), text
            assert all(sentence[0].isupper() for sentence in text.split(". "))


def test_a_meaning_is_worded_in_many_ways() -> None:
    facts = facts_of(examples("train", 1, seed=0)[0]["meaning_representation"])
    rng = Random(0)
    assert len({describe(rng, facts) for _ in range(100)}) > 50


@pytest.mark.parametrize(
    ("split", "size", "message"),
    [("dev", 3, "split='dev' of e2e: expected one of train, validation, test"), ("test", 0, "size=0")],
)
def test_what_cannot_be_made_is_refused(split: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        examples(split, size, seed=0)
    with pytest.raises(ValueError, match="size=0"):
        corpus(0, 0)


def test_more_than_the_grammar_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restaurants, "_word", lambda rng: "Fenford")
    monkeypatch.setattr(restaurants, "NAME_FORMS", ("{}",))
    monkeypatch.setattr(restaurants, "ATTEMPTS", 20)
    monkeypatch.setattr(descriptions, "IN_OPENING", 1)
    monkeypatch.setattr(restaurants, "SLOTS", ("name", "area", "familyFriendly"))
    with pytest.raises(ValueError, match=r"size=50: e2e train has no more than about \d different restaurants"):
        examples("train", 50, seed=0)
