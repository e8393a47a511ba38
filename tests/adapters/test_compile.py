"""A compiled step: one graph, without breaks, which a resample and another shape leave as it is.

Not so for RoSA: whether its support is chosen is read from a tensor's version, which a trace cannot follow.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import RobertaConfig, RobertaForSequenceClassification

from rosa.adapters import attach, resample
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RosaConfig

METHODS: list[MethodConfig] = [
    RosaConfig(rank=4),
    LoraConfig(rank=4),
    IA3Config(),
    FullConfig(),
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_step_is_one_graph_and_stays_it(method: MethodConfig) -> None:
    torch.manual_seed(0)
    shape = RobertaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=60,
        problem_type="single_label_classification",  # otherwise transformers sets it in the first step
    )
    model = attach(RobertaForSequenceClassification(shape), method, generator=torch.Generator(), verbose=False).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    torch._dynamo.reset()
    counters.clear()
    model.compile(backend="eager", dynamic=True)

    def step(rows: int, tokens: int) -> None:
        ids = torch.randint(3, 100, (rows, tokens))
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(4, 10)
    step(5, 12)
    graphs = counters["stats"]["unique_graphs"]
    if isinstance(method, RosaConfig):
        resample(model, generator=torch.Generator())
    step(4, 17)
    step(6, 20)
    assert dict(counters["graph_break"]) == {}
    assert graphs == counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
