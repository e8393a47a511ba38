"""Base class of the scorers of all task kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from rosa.config import TaskConfig
from rosa.errors import ConfigError
from rosa.utils.console import nearest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction

Reduction: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Maps a batch's (logits, labels) to what is kept for the metrics: the summed loss in nats and the number of
counted tokens of each example, (examples, 2)."""


class Scorer(ABC):
    """Computes all metrics of a task on one split; serves as ``compute_metrics`` of a Hugging Face ``Trainer``.

    Args:
        task: its kind and the names of its metrics.

    Raises:
        ConfigError: ``task.metrics`` names an unknown metric; raised when constructed, before any training.
    """

    METRICS: ClassVar[Iterable[str]]
    """Names of the metrics that this scorer can compute."""
    KIND: ClassVar[str] = ""
    """The kind of task in messages, such as ``vector regression``."""

    def __init__(self, task: TaskConfig) -> None:
        known = list(self.METRICS)
        for name in task.metrics:
            if name not in known:
                kind = f" of {self.KIND}" if self.KIND else ""
                expected = f"expected some of {', '.join(known)}"
                raise ConfigError(f"task.metrics: unknown metric{kind} {name!r}; {expected}{nearest(name, known)}")
        self.task = task
        self.warnings: list[str] = []
        """Warnings about the scores of the latest evaluation."""

    @property
    def reduce(self) -> Reduction | None:
        """What is kept instead of the logits; None keeps them."""
        return None

    @abstractmethod
    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Metric name -> score, in the order of ``task.metrics``."""
