"""Time the library in a process of its own; :mod:`benchmarks.against` starts it on two versions of the code.

It uses only what both versions have: ``rosa.attach``, ``rosa.resample`` and ``rosa.RosaConfig``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import rosa

PASSES = 15
"""Timed passes of a quantity, after ``WARM_UP`` others; a resample has ``RESAMPLES``."""
WARM_UP = 3
RESAMPLES = 3
WIDTH = 768
TOKENS = 1024
LAYERS = 48
"""Adapted layers of RoBERTa-base, query, key, value and output: their resample is timed."""
RANK = 8
SHAPE: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""Of minilm."""


class Layers(nn.Module):
    """Square layers one after the other, under a name that every method adapts.

    Args:
        count: of the layers.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last layer's output, (tokens, width)."""
        for layer in self.attention:
            x = layer(x)
        return x


def attached(model: nn.Module) -> nn.Module:
    """The model under ROSA."""
    return rosa.attach(model, rosa.RosaConfig(rank=RANK), verbose=False)


def median(action: Callable[[], object], passes: int, warm_up: int) -> float:
    """The median time of an action, in seconds."""
    taken = []
    for _ in range(warm_up + passes):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[warm_up:])


def layer_pass(precision: str) -> Callable[[], None]:
    """Forward and backward of one adapted layer, which also computes the gradient of its input."""
    layer = attached(Layers(1))
    inputs = torch.randn(TOKENS, WIDTH).requires_grad_()

    def act() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            out = layer(inputs)
        out.float().sum().backward()
        layer.zero_grad()
        inputs.grad = None

    return act


def step_of_a_model(precision: str) -> Callable[[], None]:
    """A training step of a classifier of minilm's shape with random weights, AdamW's update included."""
    model = attached(BertForSequenceClassification(BertConfig(**SHAPE))).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    tokens = torch.randint(1000, 20000, (32, 16))  # CoLA's batches have about 13 tokens an example
    labels = torch.randint(0, 2, (32,))

    def act() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return act


def measure(precisions: list[str]) -> dict[str, float]:
    """The seconds of each quantity, by its name in the table."""
    torch.manual_seed(0)
    found = {}
    for precision in precisions:
        found[f"layer of {WIDTH}, forward and backward, {precision}"] = median(layer_pass(precision), PASSES, WARM_UP)
        found[f"step of minilm's shape, {precision}"] = median(step_of_a_model(precision), PASSES, WARM_UP)
    layers = attached(Layers(LAYERS))
    generator = torch.Generator().manual_seed(0)
    found[f"resample of {LAYERS} layers of {WIDTH}"] = median(
        lambda: rosa.resample(layers, generator=generator), RESAMPLES, 0
    )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("precisions", nargs="+")
    print(json.dumps(measure(parser.parse_args().precisions)))
