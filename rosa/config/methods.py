"""The methods and their options; these classes are the Python API too (``rosa.attach(model, rosa.RosaConfig())``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from rosa.config.checks import choice, positive, require


def _rank(value: object) -> None:
    expected = "a whole number of at least 1, or a share of min(out, in) between 0 and 1"
    require(isinstance(value, (int, float)) and not isinstance(value, bool), "method.rank", value, expected)
    whole = isinstance(value, int) and value >= 1
    share = isinstance(value, float) and 0 < value < 1
    require(whole or share, "method.rank", value, expected)


ATTENTION = ("*attention*", "*attn*")
"""Default targets: every linear layer inside a module whose name says attention, in any Hugging Face architecture."""


@dataclass
class MethodConfig:
    """What every method has: a name, and what becomes of the task's head."""

    name: str = ""
    head: str = "train"
    """``train`` (the field's standard) or ``freeze`` (what the authors' released code does)."""

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.NAME
        require(self.name == self.NAME, "method.name", self.name, f"{self.NAME!r} for {type(self).__name__}")
        choice("method.head", self.head, ("train", "freeze"))


@dataclass
class TargetedConfig(MethodConfig):
    """A method that adapts the layers whose names match a pattern."""

    targets: list[str] = field(default_factory=lambda: list(ATTENTION))
    """Shell patterns (``*``, ``?``), matched without case against a module's dotted name or any dotted suffix of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        several = isinstance(self.targets, (list, tuple)) and all(isinstance(t, str) and t for t in self.targets)
        require(several and bool(self.targets), "method.targets", self.targets, "a list of at least one pattern")


@dataclass
class RosaConfig(TargetedConfig):
    """ROSA: train a random subspace of the singular vectors of each weight, and draw a new one every so often.

    Source: arXiv 2407.07802, section 3 and algorithm 1.
    """

    rank: Any = 8
    """Trainable singular triplets R of each weight: an int, or a float in (0, 1), a share of min(out, in)."""
    every: int = 2
    """Units between two resamples; 0 never resamples (an SVD initialisation only)."""
    unit: str = "epoch"
    """What ``every`` counts: ``epoch`` or ``step`` (optimizer updates)."""
    sampling: str = "random"
    """``random`` subset without replacement, ``top``, ``bottom``, or ``window``: a random contiguous block."""
    train: str = "ab"
    """Which factors get gradients: ``ab``, ``a`` or ``b``."""
    optimizer_state: str = "reset"
    """What a resample does to the optimizer's state of A and B: ``reset`` or ``keep``."""

    NAME: ClassVar[str] = "rosa"

    def __post_init__(self) -> None:
        super().__post_init__()
        _rank(self.rank)
        require(self.every >= 0, "method.every", self.every, "a whole number of at least 0")
        choice("method.unit", self.unit, ("epoch", "step"))
        choice("method.sampling", self.sampling, ("random", "top", "bottom", "window"))
        choice("method.train", self.train, ("ab", "a", "b"))
        choice("method.optimizer_state", self.optimizer_state, ("reset", "keep"))


@dataclass
class LoraConfig(TargetedConfig):
    """LoRA (arXiv 2106.09685) through ``loralib``: W stays, B A x alpha/r is added."""

    rank: Any = 8
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the adapter's input, in [0, 1)."""

    NAME: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        _rank(self.rank)
        positive("method.alpha", self.alpha)
        require(0 <= self.dropout < 1, "method.dropout", self.dropout, "a number in [0, 1)")


@dataclass
class IA3Config(MethodConfig):
    """(IA)3 (arXiv 2205.05638): learned vectors, starting at 1, that scale activations and never weights."""

    variant: str = "paper"
    """``paper``: keys, values and the feed-forward's inner activations; ``attention_inputs``: the inputs of every
    attention linear, as the ROSA authors' released code does."""

    NAME: ClassVar[str] = "ia3"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("method.variant", self.variant, ("paper", "attention_inputs"))


@dataclass
class FullConfig(MethodConfig):
    """Full fine-tuning: every parameter trains."""

    NAME: ClassVar[str] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.head == "train", "method.head", self.head, "'train': full fine-tuning trains everything")


METHODS: dict[str, type[MethodConfig]] = {c.NAME: c for c in (RosaConfig, LoraConfig, IA3Config, FullConfig)}
