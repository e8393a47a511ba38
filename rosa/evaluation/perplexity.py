"""Perplexity of a language model, from the summed loss of all tokens of a split.

``perplexity`` is ``exp`` of the mean loss per token (in nats), and ``bits_per_token`` is this mean in bits. The mean is
over tokens: a mean of the batches' means, or of their exponentials, would depend on the batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from rosa.errors import DivergedError, ScoringError
from rosa.evaluation import scorer
from rosa.utils.names import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction, PreTrainedModel


def perplexity(nats: float) -> float:
    """Perplexity from the mean loss per token in nats; infinite if a double overflows."""
    return math.exp(nats) if nats < math.log(torch.finfo(torch.float64).max) else math.inf


def bits_per_token(nats: float) -> float:
    """Bits per token from the mean loss per token in nats."""
    return nats / math.log(2)


BATCH = 64
"""Rows in each batch of the definition that depends on them: the default of ``train.evaluation_batch_size``, whatever a
run's own is, which may be as small as its memory asks for."""

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
    # One example at a time: it fits a processor's cache, and needs no copy of the whole batch's logits.
    losses = [
        functional.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="none").double().sum()
        for row, wanted in zip(logits[:, :-1], counted, strict=True)
    ]
    return torch.stack((torch.stack(losses), (counted != IGNORED).double().sum(1)), dim=1)


def definitions(
    model: PreTrainedModel,
    rows: Sequence[Mapping[str, Sequence[int]]],
    padding: int,
    batch_size: int,
) -> dict[str, float]:
    """Perplexities of the same texts by each definition that published numbers may have.

    Args:
        model: a causal language model.
        rows: ``input_ids``, and ``labels`` with ``IGNORED`` for the tokens of the prompt.
        padding: id of the padding token.
        batch_size: rows that the model gets at a time; no perplexity depends on it.

    Returns:
        ``reference``: from the summed loss of the tokens of the references and their ends. ``all_tokens``: of the
        prompts' tokens too, all but each row's first. ``mean_of_batches``: the mean over batches of :data:`BATCH` rows,
        in their order, of ``exp`` of the batch's mean loss per token, the prompts' included, as the released code of
        ROSA's authors has it.
    """
    found = []  # of each part (rows, reference or all, loss or tokens)
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            width = max(len(row["input_ids"]) for row in part)
            ids = torch.full((len(part), width), padding)
            mask = torch.zeros_like(ids)
            labels = torch.full_like(ids, IGNORED)
            for number, row in enumerate(part):
                length = len(row["input_ids"])
                ids[number, :length] = torch.tensor(row["input_ids"])
                labels[number, :length] = torch.tensor(row["labels"])
                mask[number, :length] = 1
            whole = torch.where(mask == 1, ids, IGNORED)
            ids, mask = ids.to(model.device), mask.to(model.device)
            logits = model(input_ids=ids, attention_mask=mask).logits
            both = [token_losses(logits, kind.to(model.device)) for kind in (labels, whole)]
            found.append(torch.stack(both, dim=1).cpu())
    batches = torch.stack([batch.sum(0) for batch in torch.cat(found).split(BATCH)])
    exponentials = [perplexity(float(nats / tokens)) for nats, tokens in batches[:, 1]]
    sums = batches.sum(0)
    reference, every = (sums[:, 0] / sums[:, 1]).tolist()
    return {
        "reference": perplexity(reference),
        "all_tokens": perplexity(every),
        "mean_of_batches": sum(exponentials) / len(exponentials),
    }


class Scorer(scorer.Scorer):
    """Scores a language model by the :func:`token_losses` of each example."""

    METRICS = METRICS
    KIND = "text generation"

    @property
    def reduce(self) -> scorer.Reduction:
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
