"""Perplexity of a language model, from the summed loss of all tokens of a split.

``perplexity`` is ``exp`` of the mean loss per token (in nats), and ``bits_per_token`` is this mean in bits. The mean is
over tokens: a mean of the batches' means, or of their exponentials, would depend on the batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from rosa.errors import DivergedError, ScoringError
from rosa.evaluation import scorer
from rosa.utils.names import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction


def perplexity(nats: float) -> float:
    """Perplexity from the mean loss per token in nats; infinite if a double overflows."""
    return math.exp(nats) if nats < math.log(torch.finfo(torch.float64).max) else math.inf


def bits_per_token(nats: float) -> float:
    """Bits per token from the mean loss per token in nats."""
    return nats / math.log(2)


METRICS = {"perplexity": perplexity, "bits_per_token": bits_per_token}
"""Metric name, in ``task.metrics`` and records -> its function of the mean loss per token."""


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss in nats and number of counted tokens of each example.

    Args:
        logits: (examples, tokens, vocabulary); each position predicts the next token.
        labels: (examples, tokens); ``IGNORED`` for tokens that are not counted.

    Returns:
        (examples, 2), float64.
    """
    counted = labels[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), counted, ignore_index=IGNORED, reduction="none"
    )
    return torch.stack((losses.double().sum(1), (counted != IGNORED).double().sum(1)), dim=1)


class Scorer(scorer.Scorer):
    """Scores a language model by the :func:`token_losses` of each example."""

    METRICS = METRICS
    KIND = "text generation"

    @property
    def reduce(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Keep :func:`token_losses` instead of the logits of a whole split, which would not fit in memory."""
        return token_losses

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score summed losses and token counts of shape (examples, 2).

        Raises:
            ScoringError: no token is counted.
            DivergedError: the loss is not finite.
        """
        loss, tokens = np.asarray(evaluation.predictions, dtype=np.float64).sum(axis=0)
        if tokens == 0:
            raise ScoringError("no token of the split is counted; expected at least one reference with text")
        if not np.isfinite(loss):
            raise DivergedError(
                f"the summed loss of {tokens:.0f} tokens is {loss}: training has diverged; try a lower train.lr"
            )
        return {name: METRICS[name](float(loss / tokens)) for name in self.task.metrics}
