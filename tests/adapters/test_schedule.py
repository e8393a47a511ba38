"""Whose schedule the resampling callback goes by: it searches the model once, and notices what is exchanged later."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

import rosa.peft
from rosa.adapters import attach, merge
from rosa.adapters.callback import ResampleCallback
from rosa.config import LoraConfig, MethodConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.names import EVENT
from rosa.utils.seeding import generator
from tests.adapters.test_parts import Towers, steps_of, trained

ARGUMENTS = SimpleNamespace(gradient_accumulation_steps=1, seed=0, output_dir="none", load_best_model_at_end=False)


def stepwise(every: int, rewarm: int = 0) -> RosaConfig:
    return RosaConfig(rank=2, every=every, unit="step", rewarm_steps=rewarm)


def exchange(model: nn.Module, config: MethodConfig) -> None:
    attach(merge(model), config, generator=generator(0, "exchange"), verbose=False)


def one(config: MethodConfig, layers: int = 2) -> nn.Module:
    model = nn.ModuleDict({"attention": nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))})
    return attach(model, config, generator=generator(0, "one"), verbose=False)


def update(callback: ResampleCallback, model: nn.Module, step: int) -> list[int]:
    """One update's events without an optimizer's work; the updates of its resamples."""
    state, optimizer = TrainerState(global_step=step), torch.optim.SGD(model.parameters())
    given: dict[str, Any] = {"model": model, "optimizer": optimizer, "train_dataloader": [0] * 7}
    callback.on_step_begin(ARGUMENTS, state, None, **given)
    callback.on_pre_optimizer_step(ARGUMENTS, state, None, **given)
    callback.on_optimizer_step(ARGUMENTS, state, None, **given)
    return [entry["step"] for entry in state.log_history if EVENT in entry]


def calls_of_an_update(model: nn.Module, callback: ResampleCallback) -> int:
    """Python functions that the callback's events call in an update without a resample, after the first."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    state, optimizer = TrainerState(global_step=1), torch.optim.SGD(model.parameters())
    given: dict[str, Any] = {"model": model, "optimizer": optimizer, "train_dataloader": [0] * 7}
    callback.on_train_begin(ARGUMENTS, TrainerState(), None, **given)
    callback.on_step_begin(ARGUMENTS, TrainerState(), None, **given)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        callback.on_step_begin(ARGUMENTS, state, None, **given)
        callback.on_pre_optimizer_step(ARGUMENTS, state, None, **given)
        callback.on_optimizer_step(ARGUMENTS, state, None, **given)
    finally:
        sys.setprofile(before)
    return calls


def through_peft(layers: int) -> nn.Module:
    model = nn.ModuleDict({"attention": nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))})
    return peft.get_peft_model(model, rosa.peft.RosaConfig(r=2, every=5, unit="epoch", target_modules=r".*\.\d+"))


@pytest.mark.parametrize(
    "build",
    [
        lambda layers: one(RosaConfig(rank=2, every=5), layers),
        lambda layers: one(stepwise(5, rewarm=1), layers),
        lambda layers: nn.ModuleList([one(stepwise(5), layers), one(stepwise(5), layers)]),
        lambda layers: nn.Sequential(*(nn.Identity() for _ in range(layers)), one(stepwise(5), layers)),
        through_peft,
    ],
    ids=["epochs", "rewarming", "parts", "a part at the end", "peft"],
)
def test_an_update_costs_the_same_for_any_number_of_layers(build: Any) -> None:
    """Each event walks over nothing: a walk calls a function for each module."""
    few, many = (calls_of_an_update(build(layers), ResampleCallback()) for layers in (2, 40))
    assert few == many
    assert many <= 40


def test_the_next_training_goes_by_the_adapter_that_the_model_has_then(tmp_path: Path) -> None:
    callback, model = ResampleCallback(), Towers(stepwise(2), stepwise(2))
    assert steps_of(trained(model, callback, tmp_path)) == [2, 4]
    for part in (model.left, model.right):
        exchange(part, stepwise(3))
    assert steps_of(trained(model, callback, tmp_path)) == [3]
    exchange(model.left, stepwise(2))
    with pytest.raises(AdapterError, match="parts with every=2 and with every=3"):
        trained(model, callback, tmp_path)
    assert steps_of(trained(Towers(LoraConfig(rank=2), stepwise(1)), callback, tmp_path)) == [1, 2, 3, 4]


def test_one_part_exchanged_for_another_method_leaves_the_others_schedule(tmp_path: Path) -> None:
    callback, model = ResampleCallback(), Towers(stepwise(3), stepwise(3))
    trained(model, callback, tmp_path)
    exchange(model.left, LoraConfig(rank=2))
    assert steps_of(trained(model, callback, tmp_path)) == [3]
    exchange(model.right, LoraConfig(rank=2))
    with pytest.raises(AdapterError, match="nothing to resample"):
        trained(model, callback, tmp_path)


def test_an_adapter_exchanged_between_two_updates_is_noticed() -> None:
    callback, model = ResampleCallback(), one(stepwise(2))
    assert [update(callback, model, step) for step in (1, 2, 3, 4)] == [[], [2], [], [4]]
    exchange(model, stepwise(5))
    assert [update(callback, model, step) for step in (6, 10)] == [[], [10]]
    merge(model)
    with pytest.raises(AdapterError, match="no adapter of rosa"):
        update(callback, model, 11)


def test_a_callback_that_two_models_take_turns_with_goes_by_each_ones_schedule() -> None:
    callback, two, three = ResampleCallback(), one(stepwise(2)), one(stepwise(3))
    for step in range(1, 7):
        assert bool(update(callback, two, step)) == (step % 2 == 0)
        assert bool(update(callback, three, step)) == (step % 3 == 0)


def test_a_part_added_after_a_training_that_broke_off_counts_in_the_next() -> None:
    callback, model = ResampleCallback(), nn.ModuleList([one(stepwise(2))])
    assert update(callback, model, 2) == [2]
    model.append(one(stepwise(3)))
    callback.on_train_begin(ARGUMENTS, TrainerState(), None, model=model)
    with pytest.raises(AdapterError, match="parts with every=2 and with every=3"):
        update(callback, model, 1)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step
        control.should_save = control.should_training_stop


def test_a_resumed_training_goes_by_the_schedule_of_the_model_that_it_gets(tmp_path: Path) -> None:
    """The callback object, too, may be the one of the training that was interrupted."""
    callback = ResampleCallback()

    def trainer(model: nn.Module, *callbacks: TrainerCallback) -> Trainer:
        arguments = TrainingArguments(
            str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=9,
            logging_strategy="no", per_device_train_batch_size=2, remove_unused_columns=False,
        )  # fmt: skip
        data = [{"x": row} for row in torch.randn(8, 8, generator=torch.Generator().manual_seed(0))]
        return Trainer(model, arguments, train_dataset=data, callbacks=[callback, *callbacks])

    first = trainer(Towers(stepwise(2), stepwise(2)), StopAt(5))
    first.train()
    assert steps_of(first) == [2, 4]
    resumed = trainer(Towers(stepwise(3), stepwise(3)))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert steps_of(resumed) == [2, 4, 6]  # the log of the first part, and what came after it


def test_the_callback_keeps_no_model_after_its_training(tmp_path: Path) -> None:
    callback = ResampleCallback()
    model = Towers(stepwise(2), stepwise(2))
    trained(model, callback, tmp_path)
    held = [value for value in vars(callback).values() if value is not None]
    assert not any(isinstance(item, nn.Module) for value in held if isinstance(value, tuple) for item in value)
