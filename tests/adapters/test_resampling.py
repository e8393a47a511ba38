"""The updates at which the callback resamples in a stock Trainer; optimizer, schedule and function are unaffected."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Adafactor, Trainer, TrainerCallback, TrainerState, TrainingArguments

import rosa
from rosa.adapters import adapters, resample
from rosa.adapters.callback import ResampleCallback, updates_per_epoch
from rosa.config import LoraConfig, MethodConfig, RosaConfig
from rosa.errors import AdapterError, ConfigError
from rosa.utils.names import EVENT, MOVED
from rosa.utils.seeding import derive, generator
from tests.adapters import tiny
from tests.adapters.tiny import attached, build, logits, relative_difference, train_steps

LR = 1e-2


class Watch(TrainerCallback):
    """Records the state at the start of each update; one instance runs before the resampling callback, one after it."""

    def __init__(self, after: Watch | None = None) -> None:
        self.first = after
        self.logits: list[Tensor] = []
        self.directions: list[Tensor] = []
        self.learning_rates: list[float] = []
        self.optimizers: set[int] = set()
        self.parameters: set[tuple[int, ...]] = set()
        self.states: list[int] = []
        self.streams: list[Tensor] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        factors = [factor for _, adapter in adapters(model) for factor in adapter.factors().values()]
        self.directions.append(torch.cat([factor.detach().flatten() for factor in factors]))
        if self.first and torch.equal(self.directions[-1], self.first.directions[-1]):
            self.logits.append(self.first.logits[-1])
        else:
            self.logits.append(logits(model, "roberta"))
        self.learning_rates += {group["lr"] for group in optimizer.param_groups}
        self.optimizers.add(id(optimizer))
        self.parameters.add(tuple(id(factor) for factor in factors))
        self.states.append(sum(factor in optimizer.state for factor in factors))
        self.streams.append(torch.get_rng_state())


class Run:
    """A stock Trainer on random sequences, watched before and after the callback at every update."""

    def __init__(
        self,
        folder: Path,
        callback: TrainerCallback | None,
        config: MethodConfig | None = None,
        examples: int = 10,
        epochs: int = 3,
        **arguments: Any,
    ) -> None:
        self.model = attached("roberta", config or RosaConfig(rank=4))
        tokens = torch.randint(3, tiny.VOCABULARY, (examples, 6), generator=torch.Generator().manual_seed(0))
        data = [{"input_ids": row, "labels": row[0] % 3} for row in tokens]
        self.before = Watch()
        self.after = Watch(after=self.before)
        self.trainer = Trainer(
            self.model,
            TrainingArguments(
                output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=2, learning_rate=LR,
                lr_scheduler_type="linear", use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
                logging_strategy="no", **{"seed": 0, **arguments},
            ),
            train_dataset=data,
            callbacks=[c for c in (self.before, callback, self.after) if c is not None],
        )  # fmt: skip
        self.trainer.train()

    @property
    def announced(self) -> list[int]:
        """Updates done before each resample, as the log history has it."""
        return [entry["step"] for entry in self.trainer.state.log_history if EVENT in entry]

    @property
    def seen(self) -> list[int]:
        """Numbers of updates done when the factors changed without an update."""
        pairs = zip(self.before.directions, self.after.directions, strict=True)
        return [step for step, (old, new) in enumerate(pairs) if not torch.equal(old, new)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training with ``every=0``."""
    return Run(tmp_path_factory.mktemp("run"), ResampleCallback(every=0))


# Ten examples in batches of 2 are 5 batches an epoch: 5 updates, or 3 with two batches an update (one of them short).
@pytest.mark.parametrize(
    ("every", "unit", "epochs", "arguments", "expected"),
    [
        (1, "epoch", 3, {}, [5, 10]),
        (2, "epoch", 3, {}, [10]),
        (2, "epoch", 4, {}, [10]),  # not at 20, after the last update
        (3, "epoch", 3, {}, []),
        (1, "step", 1, {}, [1, 2, 3, 4]),
        (2, "step", 1, {}, [2, 4]),
        (4, "step", 2, {}, [4, 8]),
        (1, "epoch", 3, {"gradient_accumulation_steps": 2}, [3, 6]),
        (2, "step", 2, {"gradient_accumulation_steps": 2}, [2, 4]),
        (1, "epoch", 2, {"gradient_accumulation_steps": 8}, [1]),  # an epoch is less than one update's batches
        (1, "epoch", 3, {"max_steps": 7}, [5]),
        (1, "epoch", 3, {"max_steps": 5}, []),
        (0, "epoch", 2, {}, []),
        (0, "step", 2, {}, []),
    ],
)
def test_resamples_exactly_where_it_is_due(
    every: int, unit: str, epochs: int, arguments: dict[str, int], expected: list[int], tmp_path: Path
) -> None:
    run = Run(tmp_path, ResampleCallback(every=every, unit=unit), epochs=epochs, **arguments)
    assert run.announced == expected
    assert run.seen == expected
    for step in expected:
        assert relative_difference(run.after.logits[step], run.before.logits[step]) <= 1e-5
    events = [entry for entry in run.trainer.state.log_history if EVENT in entry]
    assert all(event[EVENT] == len(event[MOVED]) == len(event["factorization_seconds"]) == 8 for event in events)


def test_an_epoch_whose_examples_do_not_divide(tmp_path: Path) -> None:
    """Seven examples in batches of 2 are 4 batches, the last with one example; two a time, 2 updates."""
    run = Run(tmp_path, ResampleCallback(every=1, unit="epoch"), examples=7)
    assert run.seen == [4, 8]
    run = Run(tmp_path, ResampleCallback(every=1, unit="epoch"), examples=7, gradient_accumulation_steps=2)
    assert run.seen == [2, 4]


@pytest.mark.parametrize(("config", "expected"), [({"every": 1}, [5, 10]), ({"every": 4, "unit": "step"}, [4, 8, 12])])
def test_the_period_is_the_attached_configs_by_default(
    config: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    assert Run(tmp_path, ResampleCallback(), RosaConfig(rank=4, **config)).seen == expected


@pytest.mark.parametrize(("every", "unit"), [(1, "epoch"), (1, "step")])
def test_schedule_optimizer_and_parameters_go_on_across_resamples(
    every: int, unit: str, undisturbed: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path, ResampleCallback(every=every, unit=unit))
    updates = 15
    # The linear schedule in closed form: no restart, no update at a learning rate of 0.
    assert run.before.learning_rates == pytest.approx([LR * (1 - step / updates) for step in range(updates)])
    assert run.before.learning_rates == run.after.learning_rates == undisturbed.before.learning_rates
    assert len(run.before.optimizers | run.after.optimizers) == 1
    assert len(run.before.parameters | run.after.parameters) == 1
    # Exactly three epochs, no update more.
    for each in (run, undisturbed):
        assert each.trainer.state.global_step == updates
        assert each.trainer.state.epoch == 3.0


def test_state_is_cleared_at_a_resample_and_there_again_one_update_later(tmp_path: Path) -> None:
    run = Run(tmp_path, ResampleCallback(every=1, unit="epoch"))
    assert run.before.states == [0] + [16] * 14
    assert [step for step, count in enumerate(run.after.states) if count == 0] == [0, 5, 10]


def test_kept_state_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, ResampleCallback(), RosaConfig(rank=4, every=1, optimizer_state="keep"))
    assert run.seen == [5, 10]
    assert run.after.states == [0] + [16] * 14


def test_never_resampling_is_training_without_the_callback(undisturbed: Run, tmp_path: Path) -> None:
    without = Run(tmp_path, None)
    assert undisturbed.announced == []
    assert torch.equal(without.before.directions[-1], undisturbed.before.directions[-1])
    assert torch.equal(logits(without.model, "roberta"), logits(undisturbed.model, "roberta"))


def test_subspaces_follow_the_callbacks_seed_alone(tmp_path: Path) -> None:
    def directions(seed: int, drawn_before: int) -> Tensor:
        torch.manual_seed(drawn_before)
        run = Run(tmp_path, ResampleCallback(every=1, unit="step", seed=seed), epochs=1, max_steps=2)
        return run.after.directions[1]

    first = directions(0, 1)
    assert torch.equal(directions(0, 2), first)
    assert not torch.allclose(directions(1, 1), first, atol=1e-2)  # and 0 is a seed, not the lack of one


def test_subspaces_follow_the_trainers_seed_by_default(tmp_path: Path) -> None:
    def drawn(callback: ResampleCallback, **arguments: Any) -> Tensor:
        return Run(tmp_path, callback, epochs=1, max_steps=2, **arguments).after.directions[1]

    period: dict[str, Any] = {"every": 1, "unit": "step"}
    first = drawn(ResampleCallback(**period), seed=5)
    assert torch.equal(drawn(ResampleCallback(**period, seed=5), seed=5), first)
    assert not torch.allclose(drawn(ResampleCallback(**period, seed=6), seed=5), first, atol=1e-2)


def test_a_resample_leaves_the_global_stream_alone(tmp_path: Path) -> None:
    """A resample does not change the random numbers of dropout."""

    streams = []
    for every in (0, 1):
        run = Run(tmp_path, ResampleCallback(every=every, unit="step"), epochs=1)
        streams.append(run.after.streams)
    assert len(streams[0]) == 5
    assert all(torch.equal(one, two) for one, two in zip(*streams, strict=True))


@pytest.mark.parametrize("batches", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("accumulation", [1, 2, 3, 10])
def test_updates_an_epoch(batches: int, accumulation: int, tmp_path: Path) -> None:
    """An update for each full group of batches, and one for what is left over."""
    loader = [None] * batches
    groups = [loader[start : start + accumulation] for start in range(0, batches, accumulation)]
    args = TrainingArguments(str(tmp_path), gradient_accumulation_steps=accumulation, use_cpu=True, report_to="none")
    assert updates_per_epoch(loader, args) == len(groups)


# --- the learning rate after a resample ------------------------------------------------------------------------------


def test_rewarming_is_a_smaller_learning_rate_of_the_factors_alone(tmp_path: Path) -> None:
    """Against an AdamW whose group of factors has the ramp times the schedule, written out update by update."""
    every, rewarm, updates = 5, 3, 15
    config = RosaConfig(rank=4, every=every, unit="step", rewarm_steps=rewarm)
    run = Run(tmp_path, ResampleCallback(), config)

    model = attached("roberta", RosaConfig(rank=4))
    named = dict(model.named_parameters())
    factors = [p for n, p in named.items() if n.endswith((".A", ".B"))]
    head = [p for n, p in named.items() if p.requires_grad and not n.endswith((".A", ".B"))]
    arguments = run.trainer.args
    optimizer = torch.optim.AdamW(
        [{"params": factors}, {"params": head}], betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon, weight_decay=0.0,
    )  # fmt: skip
    ramps = []
    for step, batch in enumerate(batches_of(run, epochs=3)):
        if step and step % every == 0:
            resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        since = step % every
        ramp = (since + 1) / (rewarm + 1) if step >= every and since < rewarm else 1.0
        ramps.append(ramp)
        rate = LR * (1 - step / updates)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate * ramp, rate
        optimizer.zero_grad()
        model.train()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_([*factors, *head], arguments.max_grad_norm)
        optimizer.step()
    assert ramps == [1.0] * 5 + [0.25, 0.5, 0.75, 1.0, 1.0] * 2
    model.eval()
    assert relative_difference(logits(run.model, "roberta"), logits(model, "roberta")) < 1e-4
    # The ramp makes a difference that the comparison would notice.
    without = Run(tmp_path, ResampleCallback(), RosaConfig(rank=4, every=every, unit="step"))
    assert relative_difference(logits(run.model, "roberta"), logits(without.model, "roberta")) > 1e-2


def batches_of(run: Run, epochs: int) -> list[dict[str, Tensor]]:
    """The batches that a Trainer saw: its own loader, from the same seed."""
    trainer = Trainer(run.model, run.trainer.args, train_dataset=run.trainer.train_dataset)
    seen: list[dict[str, Tensor]] = []
    loader = trainer.get_train_dataloader()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        seen += [dict(batch) for batch in loader]
    return seen


@pytest.mark.parametrize("callback", [ResampleCallback(), ResampleCallback(every=3, unit="step", rewarm_steps=3)])
def test_a_ramp_that_the_next_resample_cuts_off_ends_the_training_at_once(
    callback: ResampleCallback, tmp_path: Path
) -> None:
    """The epochs' updates are known only here, and the callback's arguments are not those of the configuration."""
    config = RosaConfig(rank=4, every=1, rewarm_steps=5)
    with pytest.raises(ConfigError, match=r"^rewarm_steps=[53]: expected fewer updates than the [53] between"):
        Run(tmp_path, callback, config)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": -1}, "every=-1.*at least 0"),
        ({"every": 1.5}, "every=1.5: expected a whole number"),
        ({"every": True}, "every=True: expected a whole number"),
        ({"rewarm_steps": "2"}, "rewarm_steps='2': expected a whole number"),
        ({"seed": "0"}, "seed='0': expected a whole number"),
        ({"unit": "epochs"}, "unit='epochs'.*'epoch' or 'step'"),
    ],
)
def test_impossible_periods_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ResampleCallback(**arguments)


def test_every_negative_is_refused_by_the_config() -> None:
    with pytest.raises(ValueError, match=r"method\.every=-1"):
        RosaConfig(every=-1)


def test_a_model_without_adapter_is_refused(tmp_path: Path) -> None:
    model = build("roberta")
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    data = [{"input_ids": torch.tensor([3, 4, 5]), "labels": torch.tensor(0)}] * 4
    with pytest.raises(AdapterError, match=r"no adapter of rosa; call rosa\.attach.* or peft\.get_peft_model"):
        Trainer(model, args, train_dataset=data, callbacks=[ResampleCallback(every=1)]).train()


def test_a_method_that_has_no_subspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="nothing to resample"):
        Run(tmp_path, ResampleCallback(every=1, unit="step"), LoraConfig(rank=4), epochs=1)


@pytest.mark.parametrize("lacks", ["model", "optimizer"])
def test_a_trainer_that_keeps_model_or_optimizer_to_itself_is_refused(lacks: str, tmp_path: Path) -> None:
    """Without the optimizer its moments would be those of the old subspace."""
    model = attached("roberta", RosaConfig(rank=4, every=1, unit="step"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {"model": model, "optimizer": train_steps(model, "roberta", steps=0)}
    del given[lacks]
    state = TrainerState(global_step=1)
    with pytest.raises(AdapterError, match="needs a Trainer that passes its model and optimizer"):
        ResampleCallback().on_step_begin(TrainingArguments(str(tmp_path), use_cpu=True), state, None, **given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Stream(IterableDataset):
    """A stream of examples without a length."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([{"input_ids": torch.tensor([3, 4, 5]), "labels": torch.tensor(0)}] * 8)


def test_a_stream_has_steps_and_no_epochs(tmp_path: Path) -> None:
    def train(unit: str, every: int = 2) -> Trainer:
        model = attached("roberta", RosaConfig(rank=2, every=every, unit=unit))
        args = TrainingArguments(
            str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=5,
            per_device_train_batch_size=1, save_strategy="no",
        )  # fmt: skip
        trainer = Trainer(model, args, train_dataset=Stream(), callbacks=[ResampleCallback()])
        trainer.train()
        return trainer

    with pytest.raises(AdapterError, match=r"without a length.*use unit=step"):
        train("epoch")
    assert [entry["step"] for entry in train("step").state.log_history if EVENT in entry] == [2, 4]
    never = [entry for entry in train("epoch", every=0).state.log_history if EVENT in entry]
    assert never == [], "no epochs need counting where nothing is resampled"


def test_a_training_on_the_cpu_leaves_the_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call of CUDA would make a context, which takes hundreds of megabytes of a GPU that others use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("a GPU was waited for"))
    model = attached("roberta", RosaConfig(rank=2, every=1, unit="step"))
    state = TrainerState(global_step=1)
    optimizer = train_steps(model, "roberta", steps=0)
    args: Any = SimpleNamespace(seed=0, gradient_accumulation_steps=1)
    ResampleCallback().on_step_begin(args, state, None, model=model, optimizer=optimizer, train_dataloader=[0])
    assert [entry["step"] for entry in state.log_history if EVENT in entry] == [1]


# --- the optimizer's state -------------------------------------------------------------------------------------------


def optimized(name: str = "roberta", **options: Any) -> tuple[nn.Module, torch.optim.AdamW]:
    model = attached(name, RosaConfig(rank=4, **options))
    return model, train_steps(model, name, steps=4)


@pytest.mark.parametrize("train", ["ab", "a", "b"])
def test_reset_clears_all_state_of_the_factors_and_none_of_the_head(train: str) -> None:
    model, optimizer = optimized(train=train)
    factors = {id(p) for n, p in model.named_parameters() if n.endswith((".A", ".B"))}
    head = {
        p: {key: value.clone() for key, value in state.items()}
        for p, state in optimizer.state.items()
        if id(p) not in factors
    }
    groups = [dict(group, params=[id(p) for p in group["params"]]) for group in optimizer.param_groups]
    assert len(head) == 4
    resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert set(optimizer.state) == set(head)
    for parameter, state in head.items():
        assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in state.items())
        assert float(state["step"]) == 4
    assert [dict(group, params=[id(p) for p in group["params"]]) for group in optimizer.param_groups] == groups
    # Adam's count of updates starts over with the moments, or its bias correction would be off.
    train_more(model, optimizer)
    assert {float(state["step"]) for p, state in optimizer.state.items() if id(p) in factors} == {1.0}
    assert {float(state["step"]) for p, state in optimizer.state.items() if id(p) not in factors} == {5.0}


def train_more(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(**tiny.batch("roberta", seed=7)).loss.backward()
    optimizer.step()


def test_kept_state_is_not_cleared() -> None:
    model, optimizer = optimized(optimizer_state="keep")
    before = {p: {key: value.clone() for key, value in state.items()} for p, state in optimizer.state.items()}
    resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert set(optimizer.state) == set(before)
    for parameter, state in before.items():
        assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in state.items())


def test_without_an_optimizer_no_state_is_touched() -> None:
    model, optimizer = optimized()
    count = len(optimizer.state)
    resample(model, generator=generator(0, "resample"))
    assert len(optimizer.state) == count


def test_pruning_drops_the_largest_of_both_moments_under_one_mask() -> None:
    model, optimizer = optimized(optimizer_state="prune")
    factors = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    before = {p: {key: value.clone() for key, value in optimizer.state[p].items()} for p in factors}
    resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    for factor in factors:
        old, new = before[factor], optimizer.state[factor]
        assert float(new["step"]) == float(old["step"]) == 4
        order = old["exp_avg"].abs().flatten().argsort(descending=True)
        dropped, kept = order[: round(0.9 * factor.numel())], order[round(0.9 * factor.numel()) :]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not new[moment].flatten()[dropped].any()
            assert torch.equal(new[moment].flatten()[kept], old[moment].flatten()[kept])
    head = [p for p in optimizer.state if p not in set(factors)]
    assert head
    assert all(float(optimizer.state[p]["exp_avg"].abs().min()) > 0 for p in head if p.grad.abs().min() > 0)


def test_moments_that_are_codes_are_not_pruned() -> None:
    """An 8-bit optimizer's code 0 is its most negative value; nothing moves before the refusal."""
    model, optimizer = optimized(optimizer_state="prune")
    name, factor = next((n, p) for n, p in model.named_parameters() if n.endswith(".A"))
    optimizer.state[factor] = {"state1": torch.full(factor.shape, 200, dtype=torch.uint8)}
    before = factor.detach().clone()
    with pytest.raises(AdapterError, match=rf"{name}: the optimizer's state1 is of torch\.uint8.*=reset"):
        resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert torch.equal(factor, before)
    assert bool((optimizer.state[factor]["state1"] == 200).all())


FIXED: dict[str, Any] = {"relative_step": False, "scale_parameter": False}
"""Options of Adafactor with a learning rate of one's own."""


def stepped(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int = 2) -> Any:
    """A model with ``optimizer_state=prune`` after updates, its optimizer and its factors by name."""
    model = attached("roberta", RosaConfig(rank=4, optimizer_state="prune", head="freeze"))
    factors = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = make(list(factors.values()))
    for _ in range(steps):
        train_more(model, optimizer)
    return model, optimizer, factors


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda factors: torch.optim.RMSprop(factors, momentum=0.9), "momentum_buffer"),
        (lambda factors: torch.optim.RMSprop(factors, momentum=0.9, centered=True), "momentum_buffer"),
        (lambda factors: torch.optim.SGD(factors, lr=0.1, momentum=0.9), "momentum_buffer"),
        (torch.optim.NAdam, "exp_avg"),
        (lambda factors: Adafactor(factors, lr=1e-3, beta1=0.9, **FIXED), "exp_avg"),
        (torch.optim.AdamW, "state1"),
    ],
)
def test_pruning_goes_by_the_first_moment_wherever_it_is_in_the_state(make: Any, first: str) -> None:
    model, optimizer, factors = stepped(make)
    if first == "state1":  # bitsandbytes' names, the second moment before the first
        for factor, state in list(optimizer.state.items()):
            optimizer.state[factor] = {"state2": state["exp_avg_sq"], "state1": state["exp_avg"]}
    before = {factor: optimizer.state[factor][first].clone() for factor in factors.values()}
    resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    for factor, old in before.items():
        kept = old.abs().flatten().argsort()[: factor.numel() - round(0.9 * factor.numel())]
        expected = torch.zeros(factor.numel()).index_put((kept,), old.flatten()[kept])
        assert torch.equal(optimizer.state[factor][first].flatten(), expected)
        for moment in optimizer.state[factor].values():
            if isinstance(moment, Tensor) and moment.shape == factor.shape:
                assert not moment.flatten()[expected == 0].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda factors: Adafactor(factors, lr=1e-3, **FIXED),
        *(torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.ASGD, torch.optim.Rprop),
    ],
)
def test_a_state_without_a_first_moment_is_not_pruned(make: Any) -> None:
    """Nothing would be dropped, or entries chosen by something else; nothing moves before the refusal."""
    model, optimizer, factors = stepped(make)
    before = copy.deepcopy([(factor.detach(), optimizer.state[factor]) for factor in factors.values()])
    said = rf"{next(iter(factors))}: {type(optimizer).__name__} keeps \w+.*, but no first moment \(exp_avg or .*=reset"
    with pytest.raises(AdapterError, match=said):
        resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    for factor, (value, state) in zip(factors.values(), before, strict=True):
        assert torch.equal(factor, value)
        assert str(optimizer.state[factor]) == str(state)


@pytest.mark.parametrize(("make", "steps"), [(torch.optim.SGD, 2), (torch.optim.AdamW, 0), (torch.optim.RMSprop, 0)])
def test_where_there_is_no_state_there_is_nothing_to_prune(make: Any, steps: int) -> None:
    model, optimizer, _ = stepped(make, steps)
    assert resample(model, generator=generator(0, "resample"), optimizer=optimizer)


def test_the_first_update_after_a_reset_is_a_first_update() -> None:
    """Bias-corrected Adam starts with lr g / (|g| + eps): at most lr an entry, in the gradient's direction."""
    lr, eps = 1e-2, 1e-8
    model = attached("roberta", RosaConfig(rank=4))
    factors = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    optimizer = torch.optim.AdamW(factors, lr=lr, eps=eps, weight_decay=0.0)
    for _ in range(6):
        train_more(model, optimizer)
    resample(model, generator=generator(0, "resample"), optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for n, p in model.named_parameters() if n.endswith((".A", ".B"))
    ]
    before = [factor.detach().double().clone() for factor in factors]
    train_more(model, optimizer)
    for factor, old in zip(factors, before, strict=True):
        assert factor.grad is not None
        g = factor.grad.double()
        expected = -lr * g / (g.abs() + eps)
        # Adam rounds, and so does the subtraction from a factor of size 1 or more.
        torch.testing.assert_close(factor.detach().double() - old, expected, rtol=1e-4, atol=1e-6)
        assert float((factor.detach().double() - old).abs().max()) <= lr * (1 + 1e-4)


def test_without_a_reset_old_moments_would_push_along_dead_directions() -> None:
    """Kept moments of other directions change the next update; a reset avoids that."""
    updates = []
    for option in ("reset", "keep"):
        model, optimizer = optimized(optimizer_state=option)
        resample(model, generator=generator(0, "resample"), optimizer=optimizer)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith(".A")}
        train_more(model, optimizer)
        updates.append(torch.cat([(dict(model.named_parameters())[n] - old).flatten() for n, old in before.items()]))
    assert relative_difference(updates[1].detach(), updates[0].detach()) > 0.1


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_purposes_have_streams_of_their_own() -> None:
    seeds = {
        derive(seed, purpose, i) for seed in range(4) for purpose in ("order", "head", "adapter") for i in range(4)
    }
    assert len(seeds) == 4 * 3 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_callbacks_draws_depend_on_the_step_and_not_on_the_draws_before(tmp_path: Path) -> None:
    """So that a resumed training resamples as the uninterrupted one: one run draws at 2 and 4, the other at 4 only."""
    stepwise = Run(tmp_path, ResampleCallback(every=2, unit="step"), epochs=1)
    once = Run(tmp_path, ResampleCallback(every=4, unit="step"), epochs=1)
    indices = []
    for run in (stepwise, once):
        W = build("roberta").get_submodule(QUERY).weight.detach()
        rows = run.after.directions[4][4 * 32 : 8 * 32].reshape(4, 32)  # B of the first layer, after its A
        overlap = (rows @ torch.linalg.svd(W).Vh.T).abs()
        indices.append(overlap.argmax(dim=1).tolist())
        assert math.isclose(float(rows.norm(dim=1).min()), 1.0, rel_tol=1e-5)
    assert indices[0] == indices[1]


QUERY = "roberta.encoder.layer.0.attention.self.query"


def test_the_package_offers_the_callback() -> None:
    assert rosa.ResampleCallback is ResampleCallback
