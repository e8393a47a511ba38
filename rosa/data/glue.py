"""Load a GLUE task (Wang et al. 2019, arXiv 1804.07461): one or two texts and a label."""

from __future__ import annotations

from rosa.config import DataConfig, TaskConfig
from rosa.data import sources
from rosa.data.base import TaskData


def load(task: TaskConfig, data: DataConfig, seed: int, holdout: float = 0.0) -> TaskData:
    """Load the train split and every evaluation split of a task; arguments and errors as for ``sources.read``."""
    splits, facts = sources.read(task, data, seed, holdout)
    return TaskData(
        train=splits[sources.TRAIN].dataset(task),
        evaluation={name: splits[name].dataset(task) for name in sources.evaluated(splits, task)},
        facts=facts,
    )
