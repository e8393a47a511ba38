"""What every source of data shares: the shape of a loaded task, and the checks of each row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rosa.config import TaskConfig
from rosa.errors import DataError

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

TEXT_COLUMNS = ("text_a", "text_b")
"""Names of a loaded task's text columns; a task of one text has the first only."""

_LISTED = 12


@dataclass(frozen=True)
class TaskData:
    """The splits of a task, and what a record has to say about them."""

    train: datasets.Dataset
    """Columns ``text_a``, ``text_b`` (tasks of two texts), ``label``: a class number, or a float for regression."""
    evaluation: dict[str, datasets.Dataset]
    """By split name: the holdout where there is one, then as in ``TaskConfig.evaluation``."""
    facts: dict[str, Any]
    """Plain values that JSON can hold.

    ``source`` and what identifies it; ``labels``, where they were found in the files; ``splits``: for each split
    ``rows``, ``sha256`` (of a file's bytes, else of the rows in order), ``malformed`` (rows left out), and
    ``label_counts``, or ``label_mean`` with ``label_range``, or without labels ``given``, the number of different first
    texts; ``limit``: None, or ``seed``, ``rows`` kept and the ``of`` they were drawn from. The train split's and the
    holdout's ``rows`` and label facts are of the rows kept, their ``sha256`` is of everything read. After tokenizing
    also ``max_length`` and, for each split, ``tokens`` and ``truncated`` (examples cut to that length).
    """


@dataclass(frozen=True)
class Split:
    """The checked rows of one split, by column."""

    texts: tuple[list[str], ...]
    """One list a text column."""
    labels: list[int] | list[float]
    """As many as rows; none for a task without labels."""
    sha256: str
    malformed: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What the source adds, such as the file's name."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.texts[0])

    def take(self, rows: Sequence[int]) -> Split:
        """The same split with these rows only."""
        texts = tuple([column[row] for row in rows] for column in self.texts)
        labels = [self.labels[row] for row in rows] if self.labels else []
        return Split(texts, labels, self.sha256, self.malformed, self.facts)

    def describe(self, task: TaskConfig) -> dict[str, Any]:
        """The split's entry in ``TaskData.facts["splits"]``."""
        known = {"rows": self.rows, "sha256": self.sha256, "malformed": self.malformed, **self.facts}
        if not task.is_labelled:
            return {**known, "given": len(set(self.texts[0]))}
        if task.kind == "regression":
            mean = math.fsum(self.labels) / len(self.labels)
            return {**known, "label_mean": mean, "label_range": [min(self.labels), max(self.labels)]}
        counts = dict.fromkeys(task.labels, 0)
        for label in self.labels:
            counts[task.labels[int(label)]] += 1
        return {**known, "label_counts": counts}

    def dataset(self, task: TaskConfig) -> datasets.Dataset:
        """The split as a data set in memory, with the columns that ``TaskData`` promises."""
        import datasets

        names = TEXT_COLUMNS[: len(self.texts)]
        kinds = {name: datasets.Value("string") for name in names}
        kinds["label"] = datasets.Value("float64" if task.kind == "regression" else "int64")
        columns = {**dict(zip(names, self.texts, strict=True)), "label": self.labels}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


class RowCollector:
    """Gathers the rows of one split, and stops at a malformed one, or leaves it out and counts it.

    Args:
        task: what the labels may be; another one may be set before the first row is added.
        place: where the rows come from: a file, or a data set and split.
        row_mark: what stands between the place and a row's number: ``:`` for lines, ``, row `` elsewhere.
        skip_malformed: leave malformed rows out; None where the source has no such choice.
    """

    def __init__(self, task: TaskConfig, place: str, row_mark: str, skip_malformed: bool | None) -> None:
        self.task = task
        self._place = place
        self._row_mark = row_mark
        self._skip_malformed = skip_malformed
        self._texts: tuple[list[str], ...] = tuple([] for _ in task.texts)
        self._labels: list[Any] = []
        self._malformed = 0

    def add(self, number: int, texts: Sequence[Any], label: Any) -> None:
        """Check a row and keep it.

        Raises:
            DataError: a text that is missing, no text that says anything, or a label that the task does not have.
        """
        problem = self._problem_of_texts(texts)
        if problem is None and self.task.is_labelled:
            try:
                value = read_label(label, self.task)
            except DataError as error:
                problem = str(error)
        if problem is not None:
            self.refuse(number, problem)
            return
        for column, text in zip(self._texts, texts, strict=True):
            column.append(text)
        if self.task.is_labelled:
            self._labels.append(value)

    def refuse(self, number: int, problem: str) -> None:
        """Stop at a malformed row, or leave it out and count it.

        Raises:
            DataError: unless malformed rows are to be left out.
        """
        where = f"{self._place}{self._row_mark}{number}"
        if self._skip_malformed:
            if self._malformed == 0:
                log.warning("leaving out malformed rows; the first is %s: %s", where, problem)
            self._malformed += 1
            return
        choice = " (data.skip_malformed=true leaves such rows out)" if self._skip_malformed is False else ""
        raise DataError(f"{where}: {problem}{choice}")

    def finish(self, sha256: str | None = None, facts: dict[str, Any] | None = None) -> Split:
        """The split, once every row has been added; without ``sha256`` that of the rows is taken.

        Raises:
            DataError: no row is left.
        """
        if not self._texts[0]:
            left_out = f" but {self._malformed} malformed ones" if self._malformed else ""
            raise DataError(f"{self._place}: no rows{left_out}")
        if sha256 is None:
            sha256 = hash_rows(self._texts, self._labels)
        return Split(self._texts, self._labels, sha256, self._malformed, facts or {})

    def _problem_of_texts(self, texts: Sequence[Any]) -> str | None:
        for name, text in zip(self.task.texts, texts, strict=True):
            if not isinstance(text, str):
                return f"{name} is {shorten(text)}, expected a text"
            if not self.task.is_labelled and not text.strip():
                return f"{name} is empty"
        # One empty text of two is kept: the official QQP has such questions, and the hub keeps them too.
        if not any(text.strip() for text in texts):
            return "empty text" if len(texts) == 1 else "both texts are empty"
        return None


def resolved_task(task: TaskConfig, facts: Mapping[str, Any]) -> TaskConfig:
    """The task with the labels that reading its data has found; the same task where it names them itself.

    Args:
        task: as configured.
        facts: of the data, from :attr:`TaskData.facts` or a record.
    """
    return dataclasses.replace(task, labels=facts["labels"]) if "labels" in facts else task


def read_label(label: Any, task: TaskConfig) -> int | float:
    """A label as files and data sets write it -> its class number, or its value for regression.

    Raises:
        DataError: not one of the task's labels, by name or by number; not a finite number in the task's range.
    """
    if label is None:
        raise DataError("no label")
    if task.kind == "regression":
        return _number(label, task.label_range)
    if isinstance(label, str) and label in task.labels:
        return task.labels.index(label)
    written = isinstance(label, str) and label.isascii() and label.isdigit()
    number = int(label) if written or isinstance(label, int) else -1
    # Where names are numbers themselves, a number is a name: class 0 of the labels 1, 2 and 3 is not written 0.
    if 0 <= number < len(task.labels) and not any(name.isdigit() for name in task.labels):
        return number
    expected = listing([f"{name} ({number})" for number, name in enumerate(task.labels)])
    hint = "; -1 marks rows whose labels were never published" if label in (-1, "-1") else ""
    raise DataError(f"unknown label {shorten(label)}; {task.name} has {expected}{hint}")


def _number(label: Any, limits: Sequence[float]) -> float:
    """The value of a regression's label; any finite one without limits."""
    low, high = limits or (-math.inf, math.inf)
    expected = f"one in [{low:g}, {high:g}]" if limits else "a finite one"
    try:
        value = float(label)
    except (TypeError, ValueError):
        raise DataError(f"label {shorten(label)} is not a number; expected {expected}") from None
    if not (low <= value <= high and math.isfinite(value)):  # also refuses nan
        raise DataError(f"label {shorten(label)} is not in range; expected {expected}")
    return value


def hash_rows(texts: Sequence[Sequence[str]], labels: Sequence[float]) -> str:
    """SHA-256 of the rows in order, each as a JSON array of its texts, and label if any, on a line of its own."""
    digest = hashlib.sha256()
    for row in zip(*texts, *([labels] if labels else []), strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def shorten(value: object) -> str:
    """A value as an error message quotes it: its ``repr``, of bounded length."""
    quote = reprlib.Repr()
    quote.maxstring = quote.maxother = 60
    return quote.repr(value)


def listing(names: Sequence[str]) -> str:
    """Names as an error message lists them."""
    if not names:
        return "nothing"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
