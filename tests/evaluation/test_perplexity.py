"""Perplexity from summed token losses: against closed forms, and against plain Python over all tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, GPT2Config, GPT2LMHeadModel

from rosa.config import TaskConfig, TrainConfig
from rosa.errors import DivergedError
from rosa.evaluation import perplexity
from rosa.evaluation.perplexity import Scorer
from rosa.utils.names import IGNORED
from tests import causal


def task(*metrics: str) -> TaskConfig:
    return TaskConfig(
        name="e2e",
        kind="generation",
        texts=["mr", "ref"],
        metrics=list(metrics),
        headline=metrics[0],
        test="test",
        prompt="{given}",
    )


def score(*batches: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    scorer = Scorer(task("perplexity", "bits_per_token"))
    kept = torch.cat([scorer.reduce(logits, labels) for logits, labels in batches])
    return scorer(EvalPrediction(kept.numpy(), np.zeros(1)))


def test_uniform_predictions_have_the_vocabulary_size_as_perplexity():
    labels = torch.tensor([[1, 2, 3, -100], [-100, 5, -100, -100]])
    found = score((torch.zeros(2, 4, 32), labels))
    assert found["perplexity"] == pytest.approx(32, rel=1e-6)
    assert found["bits_per_token"] == pytest.approx(5, rel=1e-6)


def test_the_mean_is_over_tokens_whatever_the_batches():
    """Against a loop over single tokens; a mean of batches' means would give a short batch the same weight."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    long, short = torch.randint(40, (3, 12)), torch.randint(40, (1, 3))
    labels = long.clone()
    labels[0, :5] = -100
    labels[2, 9:] = -100
    with torch.no_grad():
        batches = [(model(long).logits, labels), (model(short).logits, short)]
    total, tokens = 0.0, 0
    for logits, wanted in batches:
        probabilities = logits.double().softmax(-1)
        for row in range(len(wanted)):
            for place in range(1, wanted.shape[1]):
                if wanted[row, place] != -100:
                    total -= math.log(probabilities[row, place - 1, wanted[row, place]])
                    tokens += 1
    assert tokens == 7 + 11 + 8 + 2
    found = score(*batches)
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert found["bits_per_token"] == pytest.approx(total / tokens / math.log(2), rel=1e-6)
    means = [model(ids, labels=wanted).loss.item() for ids, wanted in ((long, labels), (short, short))]
    assert abs(math.exp(sum(means) / 2) - found["perplexity"]) > 1, "the test's batches tell the two means apart"


def test_a_perplexity_that_overflows_is_infinite():
    logits = torch.zeros(1, 2, 2)
    logits[0, 0, 0] = 1e4
    assert score((logits, torch.tensor([[0, 1]])))["perplexity"] == math.inf


def test_no_token_and_a_diverged_model_are_refused():
    with pytest.raises(ValueError, match="no token of the split is counted"):
        score((torch.zeros(1, 3, 4), torch.full((1, 3), -100)))
    with pytest.raises(DivergedError, match="summed loss of 2 tokens is nan: training has diverged"):
        score((torch.full((1, 3, 4), math.nan), torch.zeros(1, 3, dtype=torch.long)))


def test_an_unknown_metric_is_refused_before_training():
    with pytest.raises(ValueError, match="unknown metric of text generation 'perplexiti'; .*; did you mean perplexity"):
        Scorer(task("perplexiti"))


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 5])
def test_each_definition_against_the_models_own_losses(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, without padding, with the loss that transformers computes; memory's batch size changes nothing."""
    model = causal.build_model()
    drawn = torch.Generator().manual_seed(1)
    rows = []
    for prompt, target in ((3, 5), (1, 2), (8, 1), (4, 9), (2, 2)):
        ids = torch.randint(3, 60, (prompt + target,), generator=drawn).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})

    def loss(labels: str, row: dict) -> tuple[float, int]:
        kept = torch.tensor([row[labels]])
        count = int((kept[:, 1:] != IGNORED).sum())
        with torch.no_grad():
            return float(model(torch.tensor([row["input_ids"]]), labels=kept).loss) * count, count

    def mean(labels: str, some: list[dict]) -> float:
        sums = [loss(labels, row) for row in some]
        return sum(nats for nats, _ in sums) / sum(count for _, count in sums)

    assert TrainConfig().evaluation_batch_size == perplexity.BATCH, "so have the committed records"
    monkeypatch.setattr(perplexity, "BATCH", 2)
    found = perplexity.definitions(model, rows, causal.PAD, batch_size=at_a_time)
    assert found["reference"] == pytest.approx(math.exp(mean("labels", rows)), rel=1e-5)
    assert found["all_tokens"] == pytest.approx(math.exp(mean("input_ids", rows)), rel=1e-5)
    batches = [math.exp(mean("input_ids", rows[start : start + 2])) for start in (0, 2, 4)]
    assert found["mean_of_batches"] == pytest.approx(sum(batches) / 3, rel=1e-5)
    monkeypatch.setattr(perplexity, "BATCH", 5)
    other = perplexity.definitions(model, rows, causal.PAD, batch_size=at_a_time)
    assert other["mean_of_batches"] == pytest.approx(other["all_tokens"]), "one batch: nothing to average"
    assert other["reference"] == pytest.approx(found["reference"])
