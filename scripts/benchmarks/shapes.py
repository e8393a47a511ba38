"""Models of the papers' sizes with random weights, and texts of random tokens for them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from planning.architectures import PUBLISHED
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from benchmarks.workload import Batch, moved
from rosa.config import Config
from rosa.run.device import attention_for

EXAMPLES, TOKENS = 4, 64
"""Examples and tokens of a batch: few, so that a step takes a second or two on a CPU."""
SHAPES = {
    "roberta-base": "FacebookAI/roberta-base",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
}
"""The published models whose shapes are measured, by the names of their rows."""


def random_model(shape: str, config: Config, **changes: Any) -> PreTrainedModel:
    """A model of a published shape with random weights, the same each time: a classifier, or a language model.

    Args:
        shape: a key of ``SHAPES``.
        config: the resolved configuration of a run, which would choose the model's attention by device and precision.
        changes: values of the architecture's configuration that differ from the published ones.
    """
    architecture = copy.deepcopy(PUBLISHED[SHAPES[shape]])
    architecture.update(changes)
    if _classifies(shape):
        # As training sets it; transformers would do so in the first step, which would have to be compiled again.
        architecture.problem_type = "single_label_classification"
    auto: Any = AutoModelForSequenceClassification if _classifies(shape) else AutoModelForCausalLM
    attention = attention_for(config.model.attention, config.train.device, config.train.precision)
    options = {} if attention == "auto" else {"attn_implementation": attention}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.from_config(architecture, **options)


def random_texts(
    shape: str, seed: int, device: str, examples: int = EXAMPLES, tokens: int = TOKENS, vocabulary: int = 50_000
) -> Batch:
    """A batch of random tokens, with the labels of the shape's task."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (examples, tokens), generator=stream)
    labels = torch.randint(2, (examples,), generator=stream) if _classifies(shape) else ids
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return moved(batch, device)


def _classifies(shape: str) -> bool:
    return shape.startswith("roberta")
