"""Types and checks shared by all data sources: a loaded task, a split, and the check of each row."""

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
from rosa.utils.answers import MARK, final_number

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

MOST_DIGITS = 18
"""Most digits of a label that is read as a whole number; Python refuses thousands of digits."""
LARGEST = 1e18
"""Largest magnitude of a label that is a number: the loss squares it in float32, which ends at 3.4e38."""
TEXT_COLUMNS = ("text_a", "text_b")
"""Names of a loaded task's text columns; a task of one text has the first only."""

_LISTED = 12


@dataclass(frozen=True)
class TaskData:
    """The splits of a task, and the facts about them for the run's record."""

    train: datasets.Dataset
    """Columns ``text_a``, ``text_b`` (tasks of two texts), ``label``: a class number, or a float for regression."""
    evaluation: dict[str, datasets.Dataset]
    """Split name -> the same columns: the holdout, if any, then the splits of ``TaskConfig.evaluation`` in order."""
    facts: dict[str, Any]
    """JSON values:

    - ``source``, with the keys that identify it.
    - ``labels``, if they were found in the files.
    - ``limit``: None, or ``rows`` (kept), ``of`` (rows that they were drawn from) and ``seed``.
    - ``splits``: for each split ``rows``; ``sha256`` of the file's bytes, or of the rows in order; ``malformed``, the
      number of rows left out; and ``label_counts`` (classes), ``label_mean`` and ``label_range`` (numbers), or
      ``given``, the number of distinct first texts (no labels). ``rows`` and the label facts count the rows that are
      left after ``limit`` and holdout; ``sha256`` is of everything read.
    - After tokenizing, ``max_length``, and for each split ``tokens`` and ``truncated`` (examples cut to that length).
    """


@dataclass(frozen=True)
class Split:
    """The checked rows of one split, by column."""

    texts: tuple[list[str], ...]
    """One list per text column."""
    labels: list[int] | list[float]
    """One per row; empty for a task without labels."""
    sha256: str
    malformed: int
    """Number of rows left out."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further facts from the source, such as the file's name."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.texts[0])

    def take(self, rows: Sequence[int]) -> Split:
        """A split of the given rows only."""
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
        """The split as an in-memory dataset with the columns of ``TaskData.train``."""
        import datasets

        names = TEXT_COLUMNS[: len(self.texts)]
        kinds = {name: datasets.Value("string") for name in names}
        kinds["label"] = datasets.Value("float64" if task.kind == "regression" else "int64")
        columns = {**dict(zip(names, self.texts, strict=True)), "label": self.labels}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


class RowCollector:
    """Checks and collects the rows of one split; a malformed row raises, or is skipped and counted.

    Args:
        task: defines the valid labels; may be replaced before the first row is added.
        place: the source of the rows, for messages: a file, or a dataset and split.
        row_mark: text between the place and a row's number in messages: ``:`` for lines, else ``, row ``.
        skip_malformed: skip and count malformed rows; None if the source has no such option.
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
            DataError: a text is missing, all texts are blank, or the label is not one of the task's; unless malformed
                rows are skipped.
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
        """Raise for a malformed row, or skip and count it.

        Raises:
            DataError: unless malformed rows are skipped.
        """
        where = f"{self._place}{self._row_mark}{number}"
        if self._skip_malformed:
            if self._malformed == 0:
                log.warning("skipping malformed rows; the first is %s: %s", where, problem)
            self._malformed += 1
            return
        choice = " (data.skip_malformed=true skips such rows)" if self._skip_malformed is False else ""
        raise DataError(f"{where}: {problem}{choice}")

    def finish(self, sha256: str | None = None, facts: dict[str, Any] | None = None) -> Split:
        """The split of all rows added so far.

        Args:
            sha256: hash of the source; None hashes the rows.
            facts: further facts for the record.

        Raises:
            DataError: there are no rows.
        """
        if not self._texts[0]:
            skipped = f"; all {self._malformed} are malformed" if self._malformed else ""
            raise DataError(f"{self._place}: no rows{skipped}")
        if sha256 is None:
            sha256 = hash_rows(self._texts, self._labels)
        return Split(self._texts, self._labels, sha256, self._malformed, facts or {})

    def _problem_of_texts(self, texts: Sequence[Any]) -> str | None:
        for name, text in zip(self.task.texts, texts, strict=True):
            if problem := problem_of_text(name, text):
                return problem
            if not self.task.is_labelled and not text.strip():
                return f"{name} is empty"
        if self.task.scorer == "number" and final_number(texts[-1]) is None:
            return f"{self.task.texts[-1]} has no number behind {MARK}: {shorten(texts[-1])}"
        # A pair with one empty text is valid: the official QQP has such questions, and the hub keeps them.
        if not any(text.strip() for text in texts):
            return "empty text" if len(texts) == 1 else "both texts are empty"
        return None


def warnings(task: TaskConfig, facts: Mapping[str, Any]) -> list[str]:
    """Warnings for readers of a run's scores: splits whose rows are not the official ones."""
    other = [f"{name} {read:,} (official {rows:,})" for name, (read, rows) in facts.get("other_rows", {}).items()]
    return [f"the rows are not the official ones of {task.name}: {', '.join(other)}"] if other else []


def resolved_task(task: TaskConfig, facts: Mapping[str, Any]) -> TaskConfig:
    """The task with the labels found in its data; unchanged if the configuration names them.

    Args:
        task: as configured.
        facts: :attr:`TaskData.facts`, possibly from a record.
    """
    return dataclasses.replace(task, labels=facts["labels"]) if "labels" in facts else task


def read_label(label: Any, task: TaskConfig) -> int | float:
    """Convert a label from a file or dataset to its class number, or to a float for regression.

    Raises:
        DataError: it is neither the name nor the number of one of the task's labels (classification), or not a
            number in the task's range, and in that of ``LARGEST`` (regression).
    """
    if label is None:
        raise DataError("no label")
    if task.kind == "regression":
        return _number(label, task.label_range)
    if isinstance(label, str) and label in task.labels:
        return task.labels.index(label)
    written = isinstance(label, str) and is_number(label)
    number = int(label) if written or isinstance(label, int) else -1
    # If the label names are numbers, a number is read as a name: with the labels 1, 2 and 3, 0 is not class 0.
    if 0 <= number < len(task.labels) and not any(name.isdigit() for name in task.labels):
        return number
    expected = listing([f"{name} ({number})" for number, name in enumerate(task.labels)])
    hint = "; -1 marks rows without a published label" if label in (-1, "-1") else ""
    raise DataError(f"unknown label {shorten(label)}; {task.name} has {expected}{hint}")


def is_number(label: str) -> bool:
    """Whether a label is a whole number in digits, of a length that ``int`` reads."""
    return label.isascii() and label.isdigit() and len(label) <= MOST_DIGITS


def problem_of_text(name: str, text: Any) -> str | None:
    """What is wrong with a value of the column ``name`` that is to be a text; None if it is one.

    JSON and Parquet can hold other types, characters that UTF-8 cannot encode (``\\ud800``), and NUL (``\\u0000``).
    """
    if not isinstance(text, str):
        return f"{name} is {shorten(text)}; expected text"
    if "\0" in text:
        return f"{name} {shorten(text)} has a NUL character, which no text has"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{name} {shorten(text)} has half of a surrogate pair, which is no character"
    return None


def _number(label: Any, limits: Sequence[float]) -> float:
    """The label as a float in ``limits`` (smallest, largest; may be empty) and of at most the magnitude ``LARGEST``."""
    low, high = limits or (-LARGEST, LARGEST)
    low, high = max(low, -LARGEST), min(high, LARGEST)
    expected = f"a number in [{low:g}, {high:g}]"
    try:
        value = float(label)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"label {shorten(label)} is not a number; expected {expected}") from None
    if not low <= value <= high:  # also refuses nan
        raise DataError(f"label {shorten(label)} is out of range; expected {expected}")
    return value


def hash_rows(texts: Sequence[Sequence[str]], labels: Sequence[float]) -> str:
    """SHA-256 of the rows in order: one line per row, a JSON array of its texts and its label, if any."""
    digest = hashlib.sha256()
    for row in zip(*texts, *([labels] if labels else []), strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def shorten(value: object) -> str:
    """The ``repr`` of a value, shortened to quote in an error message."""
    quote = reprlib.Repr()
    quote.maxstring = quote.maxother = 60
    return quote.repr(value)


def listing(names: Sequence[str]) -> str:
    """Join names by commas for an error message, at most 12 of them and 60 characters of each."""
    if not names:
        return "nothing"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in names[:_LISTED]) + more
