"""Optimizers that train adapters' factors, and those that only seem to: they are refused before anything moves."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import distributed, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

import rosa
from rosa.adapters import adapters, attach, resample, undecayed_names
from rosa.config import MethodConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters.tiny import attached, batch, build, logits, relative_difference, train_steps

CONFIGS: list[Callable[[], MethodConfig]] = [
    lambda: RosaConfig(rank=2, every=1, unit="step"),
    lambda: RobustConfig(rank=2, density=0.05),
]
MISSING = r"does not train .*attention.*\(\d+ of \d+ trainable factors are missing\): expected .* made after"


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def made_before(model: nn.Module, config: MethodConfig) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    return optimizer


def of_copies(model: nn.Module, config: MethodConfig) -> torch.optim.Optimizer:
    """As DeepSpeed's ZeRO-1 and 2 and float32 master weights: copies train, and are written over the parameters."""
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    return torch.optim.SGD([parameter.detach().clone().requires_grad_() for parameter in trainable(model)])


def without_one(model: nn.Module, config: MethodConfig) -> torch.optim.Optimizer:
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    _, adapter = list(adapters(model))[-1]
    left_out = next(iter(adapter.factors().values()))
    return torch.optim.AdamW([parameter for parameter in trainable(model) if parameter is not left_out])


def behind_a_wrapper(model: nn.Module, config: MethodConfig) -> Any:
    return SimpleNamespace(param_groups=of_copies(model, config).param_groups, state={})


FOREIGN = [made_before, of_copies, without_one, behind_a_wrapper]


@pytest.mark.parametrize("make", FOREIGN)
def test_an_optimizer_of_other_parameters_is_refused_before_a_resample(make: Any) -> None:
    model = build("roberta")
    optimizer = make(model, CONFIGS[0]())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AdapterError, match=MISSING):
        resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("make", FOREIGN)
def test_an_optimizer_of_other_parameters_is_refused_when_training_begins(make: Any, config: Any) -> None:
    model = build("roberta")
    optimizer = make(model, config())
    callback = rosa.ResampleCallback() if isinstance(config(), RosaConfig) else rosa.SupportCallback()
    with pytest.raises(AdapterError, match=MISSING):
        callback.on_train_begin(None, TrainerState(max_steps=9), TrainerControl(), model=model, optimizer=optimizer)


def test_a_training_without_a_resample_needs_no_such_optimizer() -> None:
    """Nothing is written into the factors, so that one of copies is right."""
    model = build("roberta")
    optimizer = of_copies(model, RosaConfig(rank=2, every=0))
    rosa.ResampleCallback().on_train_begin(None, TrainerState(), TrainerControl(), model=model, optimizer=optimizer)


def test_a_trainer_with_an_optimizer_made_before_attach_does_not_begin(tmp_path: Path) -> None:
    model = build("roberta")
    optimizer = made_before(model, CONFIGS[0]())
    given: Any = (optimizer, None)
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"),
        train_dataset=[{"input_ids": torch.arange(3, 9), "labels": torch.tensor(0)}] * 8,
        callbacks=[rosa.ResampleCallback()],
        optimizers=given,
    )
    with pytest.raises(AdapterError, match=MISSING):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("train", ["a", "b"])
def test_a_frozen_factor_needs_no_optimizer(train: str) -> None:
    model = attached("roberta", RosaConfig(rank=2, train=train))
    optimizer = AcceleratedOptimizer(train_steps(model, "roberta"), device_placement=False)
    assert resample(model, generator=generator(0, "resample"), optimizer=optimizer)


@pytest.mark.parametrize("treatment", ["reset", "prune"])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: AcceleratedOptimizer(one, device_placement=False)])
def test_the_state_of_a_sharded_optimizer_is_treated_too(treatment: str, wrap: Any, tmp_path: Path) -> None:
    """``ZeroRedundancyOptimizer`` has its state in an optimizer of its own; it trains the parameters themselves."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = attached("roberta", RosaConfig(rank=2, optimizer_state=treatment))
        optimizer = ZeroRedundancyOptimizer(trainable(model), optimizer_class=torch.optim.AdamW, lr=1e-3)
        model(**batch("roberta")).loss.backward()
        optimizer.step()
        resample(model, generator=generator(0, "resample"), optimizer=wrap(optimizer))
        factors = [factor for _, adapter in adapters(model) for factor in adapter.factors().values()]
        assert optimizer.optim.state, "the head's"
        for factor in factors:
            state = optimizer.optim.state.get(factor)
            assert (state is None) if treatment == "reset" else float((state["exp_avg"] == 0).float().mean()) >= 0.85
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("given", [True, False])
def test_a_gradient_of_the_old_subspace_is_not_applied_in_the_new_one(given: bool) -> None:
    """A resample between the backward pass and the step."""
    model = attached("roberta", RosaConfig(rank=2, head="freeze"))
    optimizer = torch.optim.SGD(trainable(model), lr=1.0)
    model(**batch("roberta")).loss.backward()
    resample(model, generator=generator(0, "resample"), optimizer=optimizer if given else None)
    before = logits(model, "roberta")
    optimizer.step()
    assert relative_difference(logits(model, "roberta"), before) == 0


# --- weight decay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("factorization", ["svd_equal", "random_add"])
def test_weight_decay_on_pretrained_weight_is_announced(decay: float, factorization: str) -> None:
    """As a stock Trainer's ``weight_decay`` does, without a word; where factors start at nothing it is right."""
    model = attached("roberta", RosaConfig(rank=2, factorization=factorization))
    optimizer = torch.optim.AdamW(trainable(model), weight_decay=decay)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rosa.ResampleCallback().on_train_begin(None, TrainerState(), TrainerControl(), model=model, optimizer=optimizer)
    said = [str(warning.message) for warning in caught]
    if decay and factorization == "svd_equal":
        assert len(said) == 1
        assert re.match(r"weight_decay=0.1 pulls roberta.*query\.A and 15 more factors towards zero", said[0])
    else:
        assert said == []


def test_factors_in_a_group_without_decay_need_no_word() -> None:
    model = attached("roberta", RosaConfig(rank=2))
    spared = undecayed_names(model)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: Any = [
        {"params": [parameter for name, parameter in named if name in spared], "weight_decay": 0.0},
        {"params": [parameter for name, parameter in named if name not in spared], "weight_decay": 0.1},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rosa.ResampleCallback().on_train_begin(
            None, TrainerState(), TrainerControl(), model=model, optimizer=torch.optim.AdamW(groups)
        )
