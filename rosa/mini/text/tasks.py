"""The nine classification and regression tasks: label proportions, disjoint splits, and generated examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from rosa.errors import DataError
from rosa.mini.text import acceptability, inference, paraphrase, pronouns, sentiment
from rosa.mini.text.checks import check_request

Row = dict[str, Any]


@dataclass(frozen=True)
class MiniTask:
    """How a task generates an example of each label."""

    make: Callable[[Random, int], Row]
    shares: tuple[float, ...]
    """The share of each label, in the order of the labels' numbers."""


TASKS: dict[str, MiniTask] = {
    "cola": MiniTask(acceptability.cola, (0.3, 0.7)),
    "sst2": MiniTask(sentiment.sst2, (0.46, 0.54)),
    "mrpc": MiniTask(paraphrase.mrpc, (0.33, 0.67)),
    "qqp": MiniTask(paraphrase.qqp, (0.63, 0.37)),
    "stsb": MiniTask(lambda rng, _label: paraphrase.stsb(rng), (1.0,)),
    "mnli": MiniTask(partial(inference.mnli, genre="town"), (0.34, 0.33, 0.33)),
    "qnli": MiniTask(inference.qnli, (0.5, 0.5)),
    "rte": MiniTask(inference.rte, (0.5, 0.5)),
    "wnli": MiniTask(pronouns.wnli, (0.53, 0.47)),
}
MISMATCHED = MiniTask(partial(inference.mnli, genre="country"), TASKS["mnli"].shares)
"""MNLI in a genre whose words are not in its training rows."""

SPLITS = ("train", "validation")
MNLI_SPLITS = ("train", "validation_matched", "validation_mismatched")

EVALUATION_SHARE = 0.25
"""The share of all texts that belongs to the evaluation splits."""
ATTEMPTS = 2000
"""Draws for one row before a task counts as exhausted."""


def splits(task: str) -> tuple[str, ...]:
    """The names of a task's splits.

    Raises:
        DataError: an unknown task.
    """
    if task not in TASKS:
        raise DataError(f"task={task!r}: expected one of {', '.join(TASKS)}")
    return MNLI_SPLITS if task == "mnli" else SPLITS


def place_of(texts: Sequence[str]) -> float:
    """Hash the texts, in any order, to [0, 1); the value decides their split."""
    digest = hashlib.blake2b("\n".join(sorted(texts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def belongs_to_evaluation(texts: Sequence[str]) -> bool:
    """Whether these texts, in any order, may be an example of any task's evaluation splits.

    If so, no task's training split and no pretraining text contains them.
    """
    return place_of(texts) < EVALUATION_SHARE


def examples(task: str, split: str, size: int, seed: int) -> list[Row]:
    """Rows of a task, with the columns and label values of the hub's GLUE.

    A hash of the text decides the split, so the splits are disjoint for all sizes and seeds. Examples are unique within
    a split. A smaller ``size`` gives the first rows of a larger one.

    Raises:
        DataError: an unknown task or split, a size below 1, or more rows than the grammar has examples.
    """
    check_request(task, split, splits(task), size)
    made = MISMATCHED if split == "validation_mismatched" else TASKS[task]
    rng = Random(f"{task}/{split}/{seed}")
    seen: set[tuple[str, ...]] = set()
    rows: list[Row] = []
    while len(rows) < size:
        label = rng.choices(range(len(made.shares)), made.shares)[0]
        for _ in range(ATTEMPTS):
            row = made.make(rng, label)
            texts = tuple(value for value in row.values() if isinstance(value, str))
            # A pair of equal texts would be trivial.
            new = texts not in seen and len(set(texts)) == len(texts)
            if new and belongs_to_evaluation(texts) == (split != "train"):
                break
        else:
            raise DataError(f"size={size}: {task} {split} has no more than about {len(rows)} different examples")
        seen.add(texts)
        rows.append({"label": label, **row})
    return rows
