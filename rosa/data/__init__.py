"""Read, check, sample and tokenize the data of a task.

``load`` reads a GLUE task from the hub, from local files or from the project's generator into a ``TaskData``;
``tokenize`` turns its texts into token ids. ``TaskData.facts`` describes the data for the run's record.
"""

from __future__ import annotations

from rosa.data.base import TaskData, resolved_task
from rosa.data.sources import load
from rosa.data.tokenization import tokenize
from rosa.errors import DataError

__all__ = ["DataError", "TaskData", "load", "resolved_task", "tokenize"]
