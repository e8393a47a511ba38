"""How a run is trained, and where it is mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from rosa.config.checks import choice, not_negative, positive, require

TUNED = "tuned"
"""``train.lr=tuned``: the learning rate that won the tuning experiment (see ``TuningConfig``)."""


SAME = "same"
"""``train.tuning.task=same``: the task of the run."""

WARMUPS = "a share of all updates in [0, 1), or a whole number of updates"


@dataclass
class TuningConfig:
    """Where ``train.lr=tuned`` looks: the finished runs of another experiment, on one task and one seed."""

    experiment: str = ""
    task: str = "cola"
    """The task whose runs choose for all, or ``same``: each task has runs of its own."""
    seed: int = 0


@dataclass
class TrainConfig:
    """Optimisation, precision and checkpoints. Defaults are the protocol's (docs/protocol.md)."""

    epochs: int = 10
    max_steps: int = 0
    """Stop after this many optimizer updates; 0 runs all epochs."""
    lr: Any = 1e-3
    """Peak learning rate, or ``tuned``. (Any: OmegaConf cannot merge a Union; checked below.)"""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    batch_size: int = 32
    """Examples a batch, over all processes of the run (``torchrun``), which share it equally."""
    accumulation: int = 1
    """Gradient accumulation: batches an optimizer update."""
    evaluation_batch_size: int = 64
    """Examples that a process scores at a time."""
    optimizer: str = "adamw"
    """``adamw``, or ``sgd``: without momentum, so beta1, beta2 and epsilon do not apply."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup: float = 0.06
    """Updates in which the learning rate rises from 0: a share of all below 1, a whole number from 1 on."""
    schedule: str = "linear"
    """``linear`` (to 0), ``cosine`` (to 0) or ``constant``, each after the warm-up."""
    label_smoothing: float = 0.0
    """Probability that is spread evenly over the vocabulary in the training loss (generation)."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    max_length: int = 512
    """Tokens of an example at most; batches are padded to their own longest example only."""
    group_by_length: bool = True
    """Batch examples of similar length together."""
    precision: str = "auto"
    """``fp32``, ``bf16`` or ``fp16`` (both as autocast); ``auto`` is bf16 on a GPU that has it and fp32 elsewhere."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int = 0
    """CPU threads of a run; 0 leaves PyTorch's own choice."""
    log_steps: int = 50
    """Updates between two log lines of loss and learning rate."""
    save_steps: int = 0
    """Updates between two checkpoints within an epoch; each epoch's end is always one."""
    keep: str = "both"
    """Which weights stay after the run: ``best`` (by the headline), ``last``, ``both`` or ``none``."""
    force: bool = False
    """Start over although a finished or interrupted run is there; once, where a batch system starts the job again."""
    fail_fast: bool = False
    """Stop a local sweep after its first failed run: those that are running write a checkpoint, the rest is left."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulation", "evaluation_batch_size", "epsilon", "max_length"):
            positive(f"train.{key}", getattr(self, key))
        for key in ("max_steps", "weight_decay", "max_grad_norm", "threads", "save_steps"):
            not_negative(f"train.{key}", getattr(self, key))
        positive("train.log_steps", self.log_steps)
        if self.lr == TUNED:
            require(bool(self.tuning.experiment), "train.tuning.experiment", "", "the name of the tuning experiment")
        else:
            number = isinstance(self.lr, (int, float)) and not isinstance(self.lr, bool)
            require(
                number and math.isfinite(self.lr) and self.lr > 0,
                "train.lr",
                self.lr,
                f"a number above 0, or {TUNED!r}",
            )
        for key in ("beta1", "beta2", "label_smoothing"):
            require(0 <= getattr(self, key) < 1, f"train.{key}", getattr(self, key), "a number in [0, 1)")
        share = 0 <= self.warmup < 1
        require(share or (self.warmup >= 1 and self.warmup % 1 == 0), "train.warmup", self.warmup, WARMUPS)
        choice("train.optimizer", self.optimizer, ("adamw", "sgd"))
        choice("train.schedule", self.schedule, ("linear", "cosine", "constant"))
        choice("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        choice("train.device", self.device, ("auto", "cpu", "cuda"))
        choice("train.keep", self.keep, ("both", "best", "last", "none"))
