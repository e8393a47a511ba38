"""Baselines without a pretrained model: a constant answer, linear models of words, and the nearest training text.

A method's score is evidence about the method only if it exceeds these. Every form of baseline is fixed: none is chosen
by a score, and no setting is tuned.

``constant`` predicts the most frequent training class (the smallest class number of equals), or the mean training
label. The others are scikit-learn's logistic regression (a class) or ridge regression (a number), with its default
regularization, on the words of the texts, lower-cased, each word as 0 or 1; a form that sees no word in training, as of
a column that is always blank, predicts as ``constant`` does:

================= =====================================================================================
``words``         of the only text
``both texts``    of each of two texts, as features of their own
``differences``   only in the first text, only in the second, in both; and each text's share of words in both
``first text``    of the first text of two
``second text``   of the second text of two
================= =====================================================================================

``retrieval``, for a task of text from text, gives a reference of the training input that is nearest to the given text:
by the cosine of their counts of words and pairs of neighbouring words, the first of equals. Of several references it is
the most typical one, with the largest sum of cosines to the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from rosa.config import TaskConfig
from rosa.evaluation import classification

CONSTANT = "constant"
RETRIEVAL = "retrieval"
WORD = r"\w+|[^\w\s]"
"""What counts as a word: letters and digits, or one mark, since ``?`` and ``'`` tell classes apart too."""
ITERATIONS = 1000
ROWS = 256

Texts = Sequence[Sequence[str]]
"""One or two columns of texts."""
Scores = Mapping[str, Mapping[str, float]]
"""Split -> metric -> score."""


@dataclass(frozen=True)
class Labelled:
    """The texts and labels of a split."""

    texts: Texts
    labels: Sequence[float]


@dataclass(frozen=True)
class Baseline:
    """One form of baseline on one task."""

    name: str
    seconds: float
    """Fitting and predicting, wall clock."""
    scores: Scores
    """As for a model; NaN where a constant prediction has no correlation."""


def of_labels(task: TaskConfig, train: Labelled, evaluation: Mapping[str, Labelled]) -> list[Baseline]:
    """Every baseline of a task of classes or numbers, the constant one first.

    Args:
        task: of kind ``classification`` or ``regression``.
        train: the rows that a method trains on.
        evaluation: the splits to score.
    """
    kinds = ["both texts", "differences", "first text", "second text"] if len(train.texts) == 2 else ["words"]
    return [_score(CONSTANT, task, train, evaluation)] + [_score(kind, task, train, evaluation) for kind in kinds]


def retrieve(given: Sequence[str], known: Sequence[str], references: Sequence[str]) -> list[str]:
    """For each given text a reference of the nearest known one.

    Args:
        given: the texts to write from, such as the test split's meaning representations.
        known: the training inputs, one for each reference.
        references: as many.
    """
    written: dict[str, list[str]] = {}
    for one, reference in zip(known, references, strict=True):
        written.setdefault(one, []).append(reference)
    inputs = list(written)
    counts = _counts()
    stored = counts.fit_transform(inputs)
    nearest = []
    asked = counts.transform(given)
    for start in range(0, len(given), ROWS):  # in parts: the whole product has a number for each given and known text
        nearest += np.asarray((asked[start : start + ROWS] @ stored.T).argmax(axis=1)).ravel().tolist()
    answers = {number: _typical(written[inputs[number]]) for number in set(nearest)}
    return [answers[number] for number in nearest]


def _typical(references: Sequence[str]) -> str:
    if len(references) < 3:
        return references[0]
    vectors = _counts().fit_transform(references)
    return references[int(np.asarray((vectors @ vectors.T).sum(axis=1)).ravel().argmax())]


def _counts() -> TfidfVectorizer:
    """Counts of words and pairs of words, each text's scaled to norm 1, so that products are cosines."""
    return TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), use_idf=False)


def _metrics(task: TaskConfig) -> list[str]:
    """Every metric of a kind of task, since runs on the same rows may ask for others."""
    numbers = task.kind == "regression"
    binary = len(task.labels) <= 2
    names = classification.METRICS.items()
    return [name for name, metric in names if (metric.DTYPE != "int64") == numbers and (binary or name != "f1")]


def _score(kind: str, task: TaskConfig, train: Labelled, evaluation: Mapping[str, Labelled]) -> Baseline:
    start = time.perf_counter()
    numbers = task.kind == "regression"
    labels = np.asarray(train.labels, dtype=np.float64 if numbers else np.int64)
    # A model of words needs a word, and logistic regression two classes.
    wordless = not any(text.strip() for column in _columns(kind, train.texts) for text in column)
    if kind == CONSTANT or wordless or (not numbers and len(np.unique(labels)) == 1):
        value = labels.mean() if numbers else np.bincount(labels).argmax()
        predicted = {name: np.full(len(split.labels), value) for name, split in evaluation.items()}
    else:
        features = _Features(kind, train.texts)
        model = Ridge() if numbers else LogisticRegression(max_iter=ITERATIONS)
        model.fit(features(train.texts), labels)
        predicted = {name: model.predict(features(split.texts)) for name, split in evaluation.items()}
    scores = {
        name: classification.compute(_metrics(task), predicted[name], np.asarray(split.labels, dtype=labels.dtype))
        for name, split in evaluation.items()
    }
    return Baseline(kind, time.perf_counter() - start, scores)


class _Features:
    """Maps texts to the features of one form, over the vocabulary of the training texts."""

    def __init__(self, kind: str, texts: Texts) -> None:
        self.kind = kind
        self.words = CountVectorizer(token_pattern=WORD, binary=True, dtype=np.float64)
        self.words.fit([text for column in _columns(self.kind, texts) for text in column])

    def __call__(self, texts: Texts) -> sparse.csr_matrix:
        columns = [self.words.transform(column) for column in _columns(self.kind, texts)]
        if self.kind == "differences":
            first, second = columns
            both = first.multiply(second).tocsr()
            shares = [both.sum(axis=1) / np.maximum(one.sum(axis=1), 1) for one in columns]
            columns = [first - both, second - both, both, *map(sparse.csr_matrix, shares)]
        return sparse.hstack(columns, format="csr")


def _columns(kind: str, texts: Texts) -> Texts:
    """The columns of texts that a form sees."""
    return {"first text": texts[:1], "second text": texts[1:]}.get(kind, texts)
