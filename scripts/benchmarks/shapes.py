"""Models of the papers' sizes with random weights, and texts of random tokens for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from benchmarks.workload import Batch

EXAMPLES, TOKENS = 4, 64
"""Examples and tokens of a batch: few, so that a step takes a second or two on a CPU."""


def random_model(shape: str) -> PreTrainedModel:
    """A RoBERTa-base, GPT-2 small or GPT-2 medium with random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if shape == "roberta-base":
            return RobertaForSequenceClassification(RobertaConfig(max_position_embeddings=514, type_vocab_size=1))
        widths: dict[str, Any] = {"gpt2": {}, "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16}}[shape]
        return GPT2LMHeadModel(GPT2Config(**widths))


def random_texts(shape: str, seed: int, device: str, examples: int = EXAMPLES, tokens: int = TOKENS) -> Batch:
    """A batch of random tokens, with the labels of the shape's task."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50_000, (examples, tokens), generator=stream)
    labels = torch.randint(2, (examples,), generator=stream) if shape == "roberta-base" else ids
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {key: tensor.to(device) for key, tensor in batch.items()}
