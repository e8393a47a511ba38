"""The data of a task: read, checked, sampled and tokenized.

``load`` brings a GLUE task from the hub, from local files or from the project's own generator into one shape;
``tokenize`` turns its texts into token ids. What was read is described by ``TaskData.facts``, for the run's record.
"""

from __future__ import annotations

from rosa.data.base import TaskData, resolved_task
from rosa.data.sources import load
from rosa.data.tokenization import tokenize
from rosa.errors import DataError

__all__ = ["DataError", "TaskData", "load", "resolved_task", "tokenize"]
