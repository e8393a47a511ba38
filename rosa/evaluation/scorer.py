"""What the scorers of all kinds of task share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from rosa.config import TaskConfig
from rosa.errors import ConfigError
from rosa.utils.console import nearest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction


class Scorer(ABC):
    """The ``compute_metrics`` of a Hugging Face ``Trainer``: every metric of a task, of one evaluation split.

    Args:
        task: its kind and the names of its metrics.

    Raises:
        ConfigError: ``task.metrics`` names one that is not in ``METRICS``; raised here, before any training.
    """

    METRICS: ClassVar[Iterable[str]]
    """The names of the metrics that this scorer computes."""
    OF: ClassVar[str] = ""
    """What they are metrics of, for the message: ``of vectors``."""

    def __init__(self, task: TaskConfig) -> None:
        known = list(self.METRICS)
        for name in task.metrics:
            if name not in known:
                called = f"no metric {self.OF} is called" if self.OF else "no metric is called"
                there = f"(there are {', '.join(known)})"
                raise ConfigError(f"task.metrics: {called} {name!r} {there}{nearest(name, known)}")
        self.task = task
        self.warnings: list[str] = []
        """What makes the scores of the latest evaluation doubtful, in words."""

    @property
    def reduce(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Maps a batch's (logits, labels) to the tensor kept for the metrics; None keeps the logits."""
        return None

    @abstractmethod
    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """The scores by name, in the order of ``task.metrics``."""
