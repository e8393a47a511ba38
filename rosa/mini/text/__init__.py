"""Generated text of the mini scale: tasks like GLUE's and E2E's, and tasks with right-or-wrong answers."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

from rosa.errors import DataError
from rosa.mini.text import answers, answers_corpus, restaurants, tasks
from rosa.mini.text.corpus import corpus, vocabulary
from rosa.mini.text.tasks import TASKS

__all__ = ["CORPORA", "TASKS", "code", "corpus", "examples", "splits", "vocabulary"]


E2E = "e2e"
CORPORA = {"restaurants": restaurants.corpus, "answers": answers_corpus.corpus}
"""Texts to pretrain a small GPT-2 on, by ``model.mini.corpus``."""


def code() -> str:
    """A hash of what decides which text is generated: the modules of this package, and Python's version."""
    found = hashlib.sha256(platform.python_version().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def splits(task: str) -> tuple[str, ...]:
    """The names of the splits of a generated task.

    Raises:
        DataError: an unknown task.
    """
    if task == E2E:
        return restaurants.SPLITS
    if task in answers.TASKS:
        return restaurants.SPLITS
    if task not in TASKS:
        raise DataError(
            f"task={task} with data=mini: text is generated for {', '.join([*TASKS, E2E, *answers.TASKS])} only; read "
            "the task's own files with data=local data.dir=DIR"
        )
    return tasks.splits(task)


def examples(task: str, split: str, size: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a task, with the hub's columns: of :mod:`tasks`, :mod:`restaurants` (``e2e``) or :mod:`answers`.

    ``size`` counts rows, or for ``e2e`` meaning representations, each of which has several rows.

    Raises:
        DataError: an unknown task or split, a size below 1, or more examples than the grammar has.
    """
    if task == E2E:
        return restaurants.examples(split, size, seed)
    if task in answers.TASKS:
        return answers.examples(task, split, size, seed)
    return tasks.examples(task, split, size, seed)
