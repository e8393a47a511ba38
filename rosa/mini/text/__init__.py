"""The mini scale: nine GLUE-shaped tasks and an E2E-shaped one, whose text comes from this project's own grammars."""

from __future__ import annotations

from typing import Any

from rosa.errors import DataError
from rosa.mini.text import restaurants, tasks
from rosa.mini.text.corpus import corpus, vocabulary
from rosa.mini.text.tasks import TASKS

__all__ = ["TASKS", "corpus", "examples", "splits", "vocabulary"]


E2E = "e2e"


def splits(task: str) -> tuple[str, ...]:
    """The names of the splits of a task that text is generated for.

    Raises:
        DataError: there is no such task.
    """
    if task == E2E:
        return restaurants.SPLITS
    if task not in TASKS:
        raise DataError(
            f"task={task} with data=mini: text is generated for {', '.join([*TASKS, E2E])} only; read the task's own "
            "files with data=local data.dir=DIR"
        )
    return tasks.splits(task)


def examples(task: str, split: str, size: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a task, as the hub has them: :func:`tasks.examples`, or for ``e2e`` :func:`restaurants.examples`.

    ``size`` counts rows, or for ``e2e`` meaning representations, of which each has several rows.

    Raises:
        DataError: no such task or split, a size below 1, or more than the grammar has examples for.
    """
    if task == E2E:
        return restaurants.examples(split, size, seed)
    return tasks.examples(task, split, size, seed)
