"""Load a task of text from text: E2E NLG (Novikova, Dusek and Rieser 2017), an MR and several references of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rosa.config import TRAIN, DataConfig, TaskConfig
from rosa.data import sources
from rosa.data.base import Split

if TYPE_CHECKING:
    import datasets

PAIR_COLUMNS = ("mr", "ref")
"""Names of a loaded split's columns: the given text (a meaning representation) and a wanted one (a reference)."""

_LINE_ENDS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
"""Whatever some program takes for the end of a line: a text is one line in the files that scorers read."""


@dataclass(frozen=True)
class Group:
    """A meaning representation and all references of it, as a split has them."""

    mr: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class GenerationData:
    """The splits of a task of text from text, and what a record has to say about them."""

    train: datasets.Dataset
    """Columns ``mr`` and ``ref``: one row a reference."""
    evaluation: dict[str, datasets.Dataset]
    """Likewise, by split name: the holdout where there is one, then as in ``TaskConfig.evaluation``."""
    groups: dict[str, tuple[Group, ...]]
    """For the evaluation splits and the test split: each MR once, in the order of first appearance."""
    facts: dict[str, Any]
    """As ``TaskData.facts``; each split but that of training also has ``in_train``: its MRs that the training rows have
    too."""


def load(task: TaskConfig, data: DataConfig, seed: int, holdout: float = 0.0) -> GenerationData:
    """Load every split of a task; arguments and errors as for ``sources.read``.

    An MR whose rows do not stand together is one group all the same. Line ends inside a text become blanks.
    """
    splits, facts = sources.read(task, data, seed, holdout)
    pairs = {name: _pairs(split) for name, split in splits.items()}
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


def group(pairs: Iterable[tuple[str, str]]) -> tuple[Group, ...]:
    """(MR, reference) pairs by MR, in the order of first appearance."""
    references: dict[str, list[str]] = {}
    for mr, reference in pairs:
        references.setdefault(mr, []).append(reference)
    return tuple(Group(mr, tuple(found)) for mr, found in references.items())


def prompt(task: TaskConfig, mr: str) -> str:
    """What the model is given to go on from, in training and decoding alike."""
    return task.prompt.format(given=mr)


def _pairs(split: Split) -> list[tuple[str, str]]:
    return [(_one_line(mr), _one_line(reference)) for mr, reference in zip(*split.texts, strict=True)]


def _one_line(text: str) -> str:
    return _LINE_ENDS.sub(" ", text.strip())


def _dataset(pairs: Iterable[tuple[str, str]]) -> datasets.Dataset:
    import datasets

    columns = dict(zip(PAIR_COLUMNS, map(list, zip(*pairs, strict=True)), strict=True))
    return datasets.Dataset.from_dict(columns)
