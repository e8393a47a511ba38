"""The protocol in the running Trainer: parameter groups, optimizer, schedule and random streams.

The comparison of methods depends on these, and no score would reveal an error in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rosa.adapters import adapters
from rosa.adapters.callback import ResampleCallback
from rosa.run import pipeline, run
from tests.conftest import Composer

pytestmark = pytest.mark.slow

METHODS = {
    "rosa": ("method=rosa", "method.rank=4", "method.every=1"),
    "rosa-random": ("method=rosa", "method.rank=4", "method.every=1", "method.factorization=random_add"),
    "lora": ("method=lora", "method.rank=4"),
    "ia3": ("method=ia3",),
    "full": ("method=full",),
}
FACTORS = {"rosa": ("A", "B"), "rosa-random": ("A", "B"), "lora": ("lora_A", "lora_B"), "ia3": ("scale",), "full": ()}
DECAYED = {"rosa-random": ("A", "B"), "lora": ("lora_A", "lora_B")}
"""Factors that start at 0, or beside one that does: decay pulls them towards the pretrained weights."""


OTHERS = (
    *("train.beta1=0.85", "train.beta2=0.97", "train.epsilon=1e-7", "train.weight_decay=0.2"),
    *("train.max_grad_norm=0.01", "train.lr=0.002"),
)
"""Settings that differ from the protocol's and from AdamW's defaults."""


class Watch(TrainerCallback):
    """Records the Trainer's state at its first update, and random draws."""

    def __init__(self, build: Any) -> None:
        self.build = build
        self.trainer: Any = None
        self.groups: list[dict[str, Any]] = []
        self.order: list[list[int]] = []
        self.head: dict[str, torch.Tensor] = {}
        self.factors: list[dict[str, torch.Tensor]] = []
        """The first adapter's factors, at the start and after each resample."""
        self.dropout: list[float] = []
        """A draw from the stream that dropout uses, at each update."""
        self.norms: list[float] = []
        """The norm of all gradients, after clipping."""
        self.optimizer: Any = None
        self.rates: list[set[float]] = []
        """The learning rates of all groups, at each update."""

    def __call__(self, parts: Any, *arguments: Any, **named: Any) -> Any:
        self.head = {n: p.detach().clone() for n, p in parts.model.named_parameters() if n.startswith("classifier")}
        self.trainer = self.build(parts, *arguments, **named)
        self.trainer.add_callback(self)
        step = self.trainer.training_step

        def training_step(model: Any, inputs: dict[str, torch.Tensor], items: Any = None) -> torch.Tensor:
            self.order.extend(inputs["input_ids"].tolist())
            return step(model, inputs, items)

        self.trainer.training_step = training_step
        return self.trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            self.dropout.append(float(torch.rand(())))
        first = next(iter(adapters(kwargs["model"])), None)
        if first is not None and state.global_step % 6 == 0:
            self.factors.append({name: value.detach().clone() for name, value in first[1].factors().items()})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainable = [p for p in kwargs["model"].parameters() if p.requires_grad]
        self.rates.append({group["lr"] for group in kwargs["optimizer"].param_groups})
        self.norms.append(float(torch.stack([p.grad.norm() for p in trainable]).norm()))
        self.optimizer = self.optimizer or kwargs["optimizer"]
        if not self.groups:
            names = {id(p): n for n, p in kwargs["model"].named_parameters()}
            for group in self.optimizer.param_groups:
                self.groups.append({**group, "names": {names[id(p)] for p in group["params"]}})


def watched(composed: Composer, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Watch:
    with monkeypatch.context() as patch:
        watch = Watch(pipeline.build_trainer)
        patch.setattr(pipeline, "build_trainer", watch)
        run(composed("train.epochs=2", "train.force=true", *overrides), "command", progress=False)
    return watch


@pytest.mark.parametrize("method", METHODS)
def test_parameter_groups_and_optimizer(method: str, composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained parameters, those with weight decay, and AdamW's settings, none of which are its defaults."""
    watch = watched(composed, monkeypatch, *METHODS[method], *OTHERS)
    decayed, spared = watch.groups
    assert type(watch.optimizer.optimizer) is torch.optim.AdamW  # within accelerate's wrapper
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.2, 0.0)
    for group in (decayed, spared):
        assert group["betas"] == (0.85, 0.97)
        assert group["eps"] == 1e-7
        assert group["initial_lr"] == 0.002
    model = watch.trainer.model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert decayed["names"] | spared["names"] == trained
    assert not decayed["names"] & spared["names"]
    factors = {name for name in trained if name.rpartition(".")[2] in FACTORS[method]}
    assert len(factors) == len(FACTORS[method]) * len(list(adapters(model)))
    kept = factors if method in DECAYED else set()
    norms = {name for name in trained if "LayerNorm" in name or name.endswith("bias")}
    assert decayed["names"] == (trained - norms - factors) | kept
    if method != "full":
        assert trained - factors == set(watch.head), "beside the factors, the head alone"
    assert all(norm == pytest.approx(0.01, rel=1e-3) for norm in watch.norms), "gradients are clipped"


def test_the_wait_for_batches_is_recorded(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch takes 20 ms more; one is fetched ahead, and an epoch's first two are not a part of a step's time."""
    build = pipeline.build_trainer

    def slow(*arguments: Any, **named: Any) -> Any:
        trainer = build(*arguments, **named)
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: (time.sleep(0.02), collate(rows))[1]
        return trainer

    monkeypatch.setattr(pipeline, "build_trainer", slow)
    done = run(composed("train.epochs=2", "train.force=true", *METHODS["lora"]), "command", progress=False)
    costs = done.record["costs"]
    assert 0.02 * (costs["steps"] - 2 * 2) <= costs["seconds_in_loading"] < costs["seconds_in_steps"]


def test_plain_gradient_descent_with_a_number_of_warm_up_updates(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGD has no momentum, and decay as configured; four warm-up updates are a quarter of the rate each."""
    watch = watched(composed, monkeypatch, *METHODS["rosa"], "train.optimizer=sgd", "train.warmup=4", "train.lr=0.002")
    assert type(watch.optimizer.optimizer) is torch.optim.SGD
    decayed, spared = watch.groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    for group in (decayed, spared):
        assert (group["momentum"], group["nesterov"]) == (0, False)
        assert group["initial_lr"] == 0.002
    assert watch.trainer.args.get_warmup_steps(1000) == 4
    rates = [watch.trainer.lr_scheduler.lr_lambdas[0](step) for step in range(5)]
    assert rates == [0, 0.25, 0.5, 0.75, 1]


SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "constant": lambda share: 1.0,
}
"""The share of the peak after a share of the updates that follow the warm-up."""


@pytest.mark.parametrize(
    ("method", "schedule", "warmup"),
    [*((method, "linear", 0.3) for method in METHODS), ("rosa", "cosine", 2), ("lora", "constant", 0.3)],
)
def test_the_schedule_of_every_update(
    method: str, schedule: str, warmup: float, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warm-up and one decay over all updates, for every method and across resamples."""
    overrides = (f"train.schedule={schedule}", f"train.warmup={warmup}", "train.lr=0.002")
    watch = watched(composed, monkeypatch, *METHODS[method], *overrides)
    updates = 12
    rising = math.ceil(updates * warmup) if warmup < 1 else warmup
    expected = [
        step / rising if step < rising else SCHEDULES[schedule]((step - rising) / (updates - rising))
        for step in range(updates)
    ]
    assert all(len(rates) == 1 for rates in watch.rates)
    assert [next(iter(rates)) for rates in watch.rates] == pytest.approx([0.002 * share for share in expected])


def test_two_methods_of_one_seed_share_head_and_order(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [watched(composed, monkeypatch, *METHODS[method]) for method in ("rosa", "lora", "full")]
    for other in seen[1:]:
        assert other.order == seen[0].order
        assert other.head.keys() == seen[0].head.keys() != set()
        assert all(torch.equal(value, seen[0].head[name]) for name, value in other.head.items())
        assert other.dropout[0] == seen[0].dropout[0]


def test_two_seeds_differ_in_all_that_is_drawn(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (watched(composed, monkeypatch, *METHODS["rosa"], f"seed={seed}") for seed in (1, 2))
    assert one.order != two.order
    for name, value in one.head.items():
        if name.endswith("weight"):
            assert not torch.equal(value, two.head[name])
    assert one.dropout[0] != two.dropout[0]
    draws = [
        callback.seed
        for watch in (one, two)
        for callback in watch.trainer.callback_handler.callbacks
        if isinstance(callback, ResampleCallback)
    ]
    assert len(draws) == len(set(draws)) == 2
    for first, second in zip(one.factors, two.factors, strict=True):  # drawn at attach, and at the resample
        assert not torch.allclose(first["A"] @ first["B"], second["A"] @ second["B"], atol=1e-3)


def test_batches_are_of_like_length(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouping by length reduces the padding of all batches."""
    padding = {}
    for group in ("true", "false"):
        overrides = ("method=lora", f"train.group_by_length={group}", "data.train_size=640", "train.max_steps=40")
        watch = watched(composed, monkeypatch, *overrides)
        pad = watch.trainer.processing_class.pad_token_id
        padding[group] = sum(row.count(pad) for row in watch.order)
    assert padding["true"] < 0.5 * padding["false"]
