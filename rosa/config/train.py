"""Configuration of the ``train`` group."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from rosa.config.checks import choice, not_negative, positive, require, whole_positive

TUNED = "tuned"
"""``train.lr=tuned``: the learning rate selected by the tuning experiment (see :class:`TuningConfig`)."""


SAME = "same"
"""``train.tuning.task=same``: the task of the run."""

AUTO_PRECISIONS = ("fp32", "bf16")
"""The values that ``train.precision=auto`` may have, which depends on the machine that does the run."""

WARMUPS = "a share of all updates in [0, 1), or a whole number of updates"


@dataclass
class TuningConfig:
    """The finished runs from which ``train.lr=tuned`` selects the learning rate."""

    experiment: str = ""
    """The tuning experiment's name."""
    task: str = "cola"
    """The task whose runs select the rate for all tasks, or ``same``: each task's own runs."""
    seed: int = 0
    """The tuning runs' seed."""


@dataclass
class TrainConfig:
    """Optimisation, precision and checkpoints; defaults as in docs/protocol.md."""

    epochs: int = 10
    max_steps: int = 0
    """Stop after this many optimizer updates; 0 runs all epochs."""
    lr: Any = 1e-3
    """Peak learning rate, or ``tuned``. (Any: OmegaConf cannot merge a Union; checked below.)"""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    batch_size: int = 32
    """Examples per batch, divided equally among the processes of the run (``torchrun``)."""
    accumulation: int = 1
    """Batches per optimizer update (gradient accumulation)."""
    evaluation_batch_size: int = 64
    """Examples per evaluation batch of a process."""
    optimizer: str = "adamw"
    """``adamw`` or ``sgd`` (no momentum, so beta1, beta2 and epsilon have no effect)."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup: float = 0.06
    """Updates in which the learning rate rises from 0: below 1 a share of all updates, otherwise their number."""
    schedule: str = "linear"
    """Schedule after the warm-up: ``linear`` or ``cosine`` (both to 0), or ``constant``."""
    label_smoothing: float = 0.0
    """Probability spread evenly over the vocabulary in the training loss (generation)."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm (clipping); 0 does not clip."""
    max_length: int = 512
    """Maximum number of tokens of an example. Each batch is padded to its longest example."""
    group_by_length: bool = True
    """Whether to batch examples of similar length."""
    precision: str = "auto"
    """``fp32``, or autocast to ``bf16`` or ``fp16``; ``auto`` is bf16 on GPUs that support it, otherwise fp32."""
    compile: bool = False
    """Compile the model with ``torch.compile``, for batches of any shape. The first updates take longer."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int = 0
    """CPU threads of a run; 0 is PyTorch's default."""
    log_steps: int = 50
    """Updates between log lines of loss and learning rate."""
    save_steps: int = 0
    """Updates between checkpoints within an epoch; 0 for none. The end of each epoch is always saved."""
    keep: str = "both"
    """Weights kept after the run: of the ``best`` epoch (by the headline), the ``last``, ``both`` or ``none``."""
    forgetting: bool = True
    """Record the loss on a fixed text that the task never shows, before and after training, if the checkpoint has a
    head that predicts tokens. It is measured after training, and belongs to none of the recorded costs."""
    force: bool = False
    """Start over even if the run is finished or interrupted; a job that a batch system restarts is resumed instead."""
    fail_fast: bool = False
    """Stop a local sweep after its first failed run: runs in progress write a checkpoint and stop."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulation", "evaluation_batch_size", "max_length", "log_steps"):
            whole_positive(f"train.{key}", getattr(self, key))
        positive("train.epsilon", self.epsilon)
        for key in ("max_steps", "weight_decay", "max_grad_norm", "threads", "save_steps"):
            not_negative(f"train.{key}", getattr(self, key))
        if self.lr == TUNED:
            expected = "the name of the tuning experiment, such as glue_mini_tune (experiments/*_tune.yaml)"
            require(bool(self.tuning.experiment), "train.tuning.experiment", "", expected)
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

    def updates_per_epoch(self, rows: int) -> int:
        """Optimizer updates of an epoch on so many rows."""
        return math.ceil(math.ceil(rows / self.batch_size) / self.accumulation)

    def updates(self, rows: int) -> int:
        """Optimizer updates of the training on so many rows."""
        planned = self.epochs * self.updates_per_epoch(rows)
        return min(planned, self.max_steps) if self.max_steps else planned
