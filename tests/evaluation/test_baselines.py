"""Baselines, against results worked out by hand and against scikit-learn pipelines built here."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from rosa.config import TaskConfig
from rosa.evaluation import baselines
from rosa.evaluation.baselines import Labelled


def task(texts: int = 1, kind: str = "classification") -> TaskConfig:
    columns = ["a", "b"][:texts]
    if kind == "regression":
        return TaskConfig("t", kind, columns, label_range=[0, 5], metrics=["pearson", "spearmanr"], headline="pearson")
    return TaskConfig("t", texts=columns, labels=["no", "yes"], metrics=["accuracy", "f1"], headline="accuracy")


def scores(found: list[baselines.Baseline], metric: str = "accuracy") -> dict[str, float]:
    return {form.name: form.scores["validation"][metric] for form in found}


def pairs(rows: int, label, seed: int) -> Labelled:
    """Random pairs of one word each out of eight, labelled by a function of the two."""
    drawn = random.Random(seed)
    texts = [[drawn.choice("stuvwxyz") for _ in range(rows)] for _ in range(2)]
    return Labelled(texts, [label(*row) for row in zip(*texts, strict=True)])


def test_the_constant_answer_is_the_most_frequent_training_class() -> None:
    train = Labelled([["a", "b", "c", "d", "e"]], [1, 1, 0, 1, 0])
    evaluation = {"validation": Labelled([["a", "b", "c", "d"]], [0, 0, 0, 1])}
    constant, words = baselines.of_labels(task(), train, evaluation)
    assert (constant.name, words.name) == ("constant", "words")
    expected = {"accuracy": 0.25, "f1": pytest.approx(2 / 5), "matthews_correlation": 0.0}
    assert constant.scores == {"validation": expected}
    assert constant.seconds >= 0


def test_of_equally_frequent_classes_the_first_is_the_constant_answer() -> None:
    train = Labelled([["a", "b"]], [1, 0])
    found = baselines.of_labels(task(), train, {"validation": Labelled([["a"]], [0])})
    assert scores(found)["constant"] == 1.0


def test_a_constant_number_has_no_correlation_and_a_word_that_tells_it_does() -> None:
    texts = ["good"] * 10 + ["bad"] * 10
    labels = [4.0 + i / 10 for i in range(10)] + [1.0 + i / 10 for i in range(10)]
    split = Labelled([texts], labels)
    constant, words = baselines.of_labels(task(kind="regression"), split, {"validation": split})
    assert math.isnan(constant.scores["validation"]["pearson"])
    assert words.scores["validation"]["pearson"] > 0.9


@pytest.mark.parametrize(
    ("label", "knows"),
    [
        (lambda a, b: int(b in "stuv"), {"both texts", "differences", "second text"}),
        (lambda a, b: int(a in "stuv"), {"both texts", "differences", "first text"}),
        (lambda a, b: int(a == b), {"differences"}),
    ],
)
def test_each_form_sees_what_it_is_named_for_and_nothing_else(label, knows) -> None:
    found = scores(
        baselines.of_labels(task(2), pairs(2000, label, seed=1), {"validation": pairs(1000, label, seed=2)}), "f1"
    )
    constant = max(found["constant"], scores_of_one_class(label))
    for form in ("both texts", "differences", "first text", "second text"):
        assert (found[form] > 0.99) == (form in knows), (form, found)
        assert form in knows or found[form] < constant + 0.1


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("blank", [0, 1])
def test_a_form_without_a_word_predicts_as_the_constant_one(kind: str, blank: int) -> None:
    split = pairs(40, lambda *texts: int(texts[1 - blank] in "stuv"), seed=1)
    split.texts[blank][:] = ["", " \n"] * 20
    found = {form.name: form.scores for form in baselines.of_labels(task(2, kind), split, {"validation": split})}
    seen, unseen = ("second text", "first text") if blank == 0 else ("first text", "second text")
    assert str(found[unseen]) == str(found["constant"])
    assert str(found[seen]) != str(found["constant"])


def scores_of_one_class(label) -> float:
    """F1 of answering 1 always."""
    share = np.mean(pairs(1000, label, seed=2).labels)
    return float(2 * share / (1 + share))


def test_words_are_those_of_a_logistic_regression_put_together_here() -> None:
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(["it", "is", "not", "good", "bad", "?"], k=4)) for _ in range(200)]
    labels = [int(("not" in text) != ("good" in text)) for text in texts]
    words = baselines.of_labels(
        task(), Labelled([texts[:100]], labels[:100]), {"validation": Labelled([texts[100:]], labels[100:])}
    )[1]
    counts = CountVectorizer(binary=True, token_pattern=r"\w+|[^\w\s]")
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(texts[:100]), labels[:100])
    assert words.scores["validation"]["accuracy"] == model.score(counts.transform(texts[100:]), labels[100:])


def test_a_training_split_of_one_class_has_the_constant_answer_everywhere() -> None:
    train = Labelled([["a b", "c"]], [1, 1])
    found = baselines.of_labels(task(), train, {"validation": Labelled([["a", "d"]], [1, 0])})
    assert scores(found) == {"constant": 0.5, "words": 0.5}


def test_retrieval_takes_the_most_typical_reference_of_the_nearest_input() -> None:
    known = ["name[A], food[Thai]"] * 3 + ["name[B], area[city]"]
    references = ["Eat there.", "A is a Thai place.", "A is a Thai restaurant.", "B lies in the city."]
    given = ["area[city], name[C]", "name[A], food[Thai], area[city]", "nothing known"]
    found = baselines.retrieve(given, known, references)
    assert found[0] == "B lies in the city."
    assert found[1] in references[1:3]
    assert found[2] in references, "a text with no known word still gets an answer"


def test_retrieval_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [f"name[{letter}], food[{letter * 2}]" for letter in "abcdefg"]
    whole = baselines.retrieve(known[::-1], known, known)
    monkeypatch.setattr(baselines, "ROWS", 2)
    assert baselines.retrieve(known[::-1], known, known) == whole == known[::-1]


def test_the_features_of_a_pair_are_its_words_apart_and_in_common() -> None:
    texts = [["a b c", "c d"], ["b c e e", "c d"]]
    found = baselines._Features("differences", texts)(texts).toarray()
    words = ["a", "b", "c", "d", "e"]
    for row, (first, second) in zip(found, zip(*texts, strict=True), strict=True):
        one, other = set(first.split()), set(second.split())
        parts = [one - other, other - one, one & other]
        expected = [float(word in part) for part in parts for word in words]
        assert row.tolist() == [*expected, len(one & other) / len(one), len(one & other) / len(other)]
