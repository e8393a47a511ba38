"""How well a language model predicts texts, from the summed losses of all tokens of a split.

``perplexity`` is ``exp`` of the mean loss (in nats) of a token, and ``bits_per_token`` the same mean in bits. The mean
is over tokens, not over batches or examples: a mean of batches' means, or of their exponentials, depends on how
examples fall into batches.
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
    """Of the mean loss of a token; infinite where a double cannot hold it."""
    return math.exp(nats) if nats < math.log(torch.finfo(torch.float64).max) else math.inf


def bits_per_token(nats: float) -> float:
    """Of the mean loss of a token."""
    return nats / math.log(2)


METRICS = {"perplexity": perplexity, "bits_per_token": bits_per_token}
"""The name of a metric in a task's configuration, and in a record -> its function of the mean loss."""


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The summed loss and the number of counted tokens of each example: (examples, 2), float64.

    Args:
        logits: (examples, tokens, vocabulary); those at a position predict the next one's token.
        labels: (examples, tokens); ``IGNORED`` where a token is not counted.
    """
    counted = labels[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), counted, ignore_index=IGNORED, reduction="none"
    )
    return torch.stack((losses.double().sum(1), (counted != IGNORED).double().sum(1)), dim=1)


class Scorer(scorer.Scorer):
    """Scores a language model from the :func:`token_losses` that are kept instead of logits."""

    METRICS = METRICS
    OF = "of a language model"

    @property
    def reduce(self) -> Callable[[Tensor, Tensor], Tensor]:
        """:func:`token_losses`: logits over a vocabulary would not fit in memory."""
        return token_losses

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score summed losses and token counts of shape (examples, 2).

        Raises:
            ScoringError: no token is counted.
            DivergedError: a loss is not finite.
        """
        loss, tokens = np.asarray(evaluation.predictions, dtype=np.float64).sum(axis=0)
        if tokens == 0:
            raise ScoringError("no token of the split is counted: are all references empty?")
        if not np.isfinite(loss):
            raise DivergedError(f"the summed loss of {tokens:.0f} tokens is {loss}: training has diverged")
        return {name: METRICS[name](float(loss / tokens)) for name in self.task.metrics}
