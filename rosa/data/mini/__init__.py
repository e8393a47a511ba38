"""The mini scale: nine GLUE-shaped tasks whose text comes from a small grammar of this project's own."""

from __future__ import annotations

from rosa.data.mini.corpus import corpus, vocabulary
from rosa.data.mini.tasks import TASKS, examples, splits

__all__ = ["TASKS", "corpus", "examples", "splits", "vocabulary"]
