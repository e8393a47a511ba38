"""Load a text-to-text task such as E2E NLG (Novikova, Dusek and Rieser 2017).

E2E pairs each meaning representation (MR) with several reference texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.config import TRAIN, DataConfig, TaskConfig
from rosa.data import local_files, sources
from rosa.data.base import Split
from rosa.errors import DataError

if TYPE_CHECKING:
    import datasets

PAIR_COLUMNS = ("mr", "ref")
"""Columns of a loaded split: the input text (a meaning representation) and a target text (a reference)."""

_LINE_ENDS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
"""Every line end known to Python or Java, with surrounding white space: the scorers read one text per line."""


@dataclass(frozen=True)
class Group:
    """A meaning representation and all its references in one split."""

    mr: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class GenerationData:
    """The splits of a text-to-text task, and the facts about them for the run's record."""

    train: datasets.Dataset
    """Columns ``mr`` and ``ref``: one row per reference."""
    evaluation: dict[str, datasets.Dataset]
    """Split name -> the same columns: the holdout, if any, then the splits of ``TaskConfig.evaluation`` in order."""
    groups: dict[str, tuple[Group, ...]]
    """Evaluation or test split -> each distinct MR once, in the order of first appearance."""
    facts: dict[str, Any]
    """As ``TaskData.facts``; every split except the training split also has ``in_train``, the number of its MRs that
    occur in the training rows."""


def load(task: TaskConfig, data: DataConfig, seed: int, holdout: float = 0.0) -> GenerationData:
    """Load all splits of a text-to-text task; arguments and errors as for :func:`rosa.data.sources.read`.

    Rows with the same MR form one group, adjacent or not. Line ends inside a text become spaces.
    """
    splits, facts = sources.read(task, data, seed, holdout)
    pairs = {name: _pairs(split, task.joiner) for name, split in splits.items()}
    known = {mr for mr, _ in pairs[TRAIN]}
    scored = [name for name in splits if name != TRAIN]
    grouped = {name: group(pairs[name]) for name in scored}
    for name in scored:
        facts["splits"][name]["in_train"] = sum(one.mr in known for one in grouped[name])
    return GenerationData(
        train=_dataset(pairs[TRAIN]),
        evaluation={name: _dataset(pairs[name]) for name in sources.evaluated(splits, task)},
        groups=grouped,
        facts=facts,
    )


def read_file(path: Path) -> tuple[Group, ...]:
    """The groups of one of the challenge's CSV files, as :func:`load` makes them of a split.

    Raises:
        DataError: it is missing, not valid CSV, lacks a column or has no rows, or a row lacks a text; names the line.
    """
    pairs = []
    content = local_files.read(path)
    for line, values in local_files.rows_of(content, path, "comma", PAIR_COLUMNS, setting="of the challenge's files"):
        if isinstance(values, str):
            raise DataError(f"{path}:{line}: {values}")
        for name, text in zip(PAIR_COLUMNS, values, strict=True):
            if not text.strip():
                raise DataError(f"{path}:{line}: {name} is empty")
        given, reference = map(_one_line, values)
        pairs.append((given, reference))
    if not pairs:
        raise DataError(f"{path}: no rows")
    return group(pairs)


def group(pairs: Iterable[tuple[str, str]]) -> tuple[Group, ...]:
    """Group (MR, reference) pairs by MR, in the order of first appearance."""
    references: dict[str, list[str]] = {}
    for mr, reference in pairs:
        references.setdefault(mr, []).append(reference)
    return tuple(Group(mr, tuple(found)) for mr, found in references.items())


def prompt(task: TaskConfig, mr: str) -> str:
    """The prompt for an MR, the same in training and decoding."""
    return task.prompt.replace("{given}", mr)  # other braces are text


def _pairs(split: Split, joiner: str) -> list[tuple[str, str]]:
    rows = zip(*split.texts, strict=True)
    return [(joiner.join(map(_one_line, given)), _one_line(reference)) for *given, reference in rows]


def _one_line(text: str) -> str:
    return _LINE_ENDS.sub(" ", text.strip())


def _dataset(pairs: Iterable[tuple[str, str]]) -> datasets.Dataset:
    import datasets

    columns = dict(zip(PAIR_COLUMNS, map(list, zip(*pairs, strict=True)), strict=True))
    return datasets.Dataset.from_dict(columns)
