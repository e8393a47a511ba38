"""The results of the benchmark of costs for one model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.contenders import LABELS, LORAS, RANK, RANKED
from benchmarks.memory import Memory
from benchmarks.timing import Spread, ratio

Case = tuple[str, int]
"""A contender's name and rank; the rank of a method without one is 0."""


def cases_at(ranks: Sequence[int]) -> list[Case]:
    """Every contender at every rank, in the order of a table's rows."""
    return [(name, rank) for name in LABELS for rank in (ranks if name in RANKED else [0])]


def case_label(case: Case) -> str:
    """``ROSA r=8``; methods without a rank by their name."""
    name, rank = case
    return f"{LABELS[name]} r={rank}" if rank else LABELS[name]


@dataclass
class Measured:
    """The measurements of one model."""

    model: str
    """Its name, and its precision where that is not the run's: ``roberta-base, bf16``."""
    batch_tokens: Sequence[int]
    """Tokens of each round's batch, padding included."""
    parts: Mapping[Case, Sequence[Mapping[str, float]]]
    """Seconds of each of ``PARTS``, one value for each round."""
    trainable: Mapping[Case, int]
    memory: Mapping[Case, Memory]
    saved: Mapping[Case, int]
    """Bytes that a forward pass keeps for the backward pass."""
    checkpoint: Mapping[Case, int]
    """Bytes of a checkpoint's tensors."""
    moves: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Seconds of a resample of all layers, by rank."""
    layers: int = 0
    """Number of adapted layers."""
    merged: Mapping[Case, Spread] = field(default_factory=dict)
    """Latency of a forward pass of the merged model, relative to the model before any method."""
    steps_per_epoch: int | None = None
    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    precision: str = "fp32"
    said: Sequence[str] = ()
    """Sentences on the cases that are left out."""

    @property
    def slug(self) -> str:
        """The model's name for files and references: without a comma."""
        return self.model.replace(", ", "_")

    def step(self, case: Case) -> list[float]:
        """Seconds of a case's steps: the sums of their parts."""
        return [sum(parts.values()) for parts in self.parts[case]]

    def reference(self, rank: int) -> Case:
        """The faster of the two LoRAs at a rank."""
        return min(((name, rank) for name in LORAS), key=lambda case: statistics.median(self.step(case)))

    def relative(self, case: Case) -> tuple[Case, Spread]:
        """A case's step relative to the faster LoRA of its rank; for a method without a rank, of rank ``RANK``."""
        reference = self.reference(case[1] or RANK)
        return reference, ratio(self.step(case), self.step(reference))
