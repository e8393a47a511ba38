"""A compiled step: one graph, without breaks, which a resample, RoSA's course and another shape leave as it is."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, RobertaConfig, RobertaForSequenceClassification

from rosa.adapters import attach, resample
from rosa.adapters.support import supported
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.training.trainer import compile_in_place
from tests.adapters.tiny import OneLayer, give_support, inputs, make_layer, perturb

METHODS: list[MethodConfig] = [
    RosaConfig(rank=4),
    LoraConfig(rank=4),
    IA3Config(),
    FullConfig(),
    RobustConfig(rank=4, density=0.05),
    RobustConfig(density=0.05, schedule="sparse_only"),
]


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "gpt2":
        words = {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 0}
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=60, **words))
    shape = RobertaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=60,
        problem_type="single_label_classification",  # otherwise transformers sets it in the first step
    )
    return RobertaForSequenceClassification(shape)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bf16"), [("roberta", False), ("roberta", True), ("gpt2", True)])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: getattr(method, "schedule", method.name))
def test_a_step_is_one_graph_and_stays_it(method: MethodConfig, kind: str, bf16: bool) -> None:
    model = attach(model_of(kind), method, generator=torch.Generator(), verbose=False).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    torch._dynamo.reset()
    counters.clear()
    compile_in_place(model, backend="eager")

    def step(rows: int, tokens: int) -> None:
        ids = torch.randint(3, 100, (rows, tokens))
        labels = ids if kind == "gpt2" else ids[:, 0] % 2
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(4, 10)
    step(5, 12)
    graphs = counters["stats"]["unique_graphs"]
    if isinstance(method, RosaConfig):
        resample(model, generator=torch.Generator())
    taken: list[Tensor] = []
    for adapter in supported(model).values():
        adapter.collect(taken.append)
    step(4, 17)
    assert len(taken) == len(supported(model))
    for adapter in supported(model).values():
        adapter.collect(None)
    give_support(model)
    step(6, 20)
    assert dict(counters["graph_break"]) == {}
    assert graphs == counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


# --- RoSA, to the compiler one operator ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("bf16", [False, True])
def test_compiled_rosa_computes_what_it_does_otherwise(kind: str, bf16: bool) -> None:
    """Output and gradients, before the support is chosen, while gradients are collected, and after the choice."""
    model = OneLayer(make_layer(kind, 12, 20))
    attach(model, RobustConfig(rank=3, density=0.1), generator=torch.Generator(), verbose=False)
    perturb(model, size=0.5)
    (adapter,) = supported(model).values()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)

    def step(run: Any) -> list[Any]:
        taken: list[Tensor] = []
        adapter.collect(taken.append if collects else None)
        model.zero_grad()
        x = inputs(4, 6, 20).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = run(x)
        y.square().sum().backward()
        return [y.detach(), x.grad, *(factor.grad for factor in adapter.factors().values()), *taken]

    for chosen, collects in ((False, False), (False, True), (True, False), (True, True)):
        if chosen and not collects:
            give_support(model)
            perturb(model, size=0.5)
        expected, found = step(model), step(compiled)
        assert len(expected) == 5 + collects
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    torch._dynamo.reset()


@pytest.mark.slow
def test_the_operator_is_described_to_the_compiler_as_it_is() -> None:
    """Its schema, its shapes without numbers, and its gradients, by PyTorch's own check."""
    model = OneLayer(make_layer("linear", 12, 20))
    attach(model, RobustConfig(density=0.1, schedule="sparse_only"), generator=torch.Generator(), verbose=False)
    give_support(model)
    (adapter,) = supported(model).values()
    values = adapter.factors()["values"]
    for x in (inputs(4, 20), inputs(20, 4).T, inputs(2, 3, 20).bfloat16()):
        given = (x.requires_grad_(), values, adapter.base.bias, adapter._number, 12)
        torch.library.opcheck(torch.ops.rosa.sparse_linear.default, given)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_found_as_itself(copied: Any) -> None:
    model = OneLayer(make_layer("linear", 12, 20))
    attach(model, RobustConfig(density=0.1, schedule="sparse_only"), generator=torch.Generator(), verbose=False)
    give_support(model)
    other = copied(model)
    perturb(other, size=0.5)
    x, found = inputs(4, 20), []
    for one in (model, other):
        (adapter,) = supported(one).values()
        with torch.no_grad():
            one_operator = torch.ops.rosa.sparse_linear(
                x, adapter.factors()["values"], adapter.base.bias, adapter._number, 12
            )
            assert torch.equal(one_operator, one(x))
        found.append(one_operator)
    assert not torch.equal(*found)


@pytest.mark.slow
def test_layers_that_share_code_share_a_graph() -> None:
    """Compiled layer by layer, as large models are."""
    layers = nn.ModuleList(OneLayer(make_layer("linear", 12, 20)) for _ in range(3))
    attach(layers, RobustConfig(rank=3, density=0.1), generator=torch.Generator(), verbose=False)
    give_support(layers)
    torch._dynamo.reset()
    counters.clear()
    for layer in layers:
        layer.compile(backend="eager")
        layer(inputs(4, 20)).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
