"""Training: a Hugging Face Trainer with exact resume, the same batches for every method, and small checkpoints."""

from __future__ import annotations

from rosa.errors import DivergedError, InterruptedRun
from rosa.training.batches import Examples
from rosa.training.checkpoints import BestWeightsCallback, best_index, find_checkpoint, load_weights, save_weights
from rosa.training.trainer import HarnessTrainer, TrainerParts, build_trainer

__all__ = [
    "BestWeightsCallback",
    "DivergedError",
    "Examples",
    "HarnessTrainer",
    "InterruptedRun",
    "TrainerParts",
    "best_index",
    "build_trainer",
    "find_checkpoint",
    "load_weights",
    "save_weights",
]
