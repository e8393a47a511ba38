"""PEFT models with ROSA and RoSA in the trainers that people use: Transformers' Trainer, accelerate, DDP, TRL."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import rosa
from rosa.adapters import support
from rosa.adapters.collect import Collector
from rosa.peft import RobustConfig, RosaConfig
from rosa.utils.seeding import generator
from tests import causal
from tests.adapters.test_checkpointing import MODELS, checkpointed
from tests.adapters.test_own_model import (
    DUE,
    UPDATES,
    StopAfter,
    ended_with_the_best,
    examples,
    optimizer_states,
    resamples,
    timeless,
    trainer_for,
    with_dropout,
)
from tests.adapters.tiny import batch, build, give_support, logits, perturb, relative_difference
from tests.processes import together
from tests.tiers import slow_but

HEAD = {"bert": {"modules_to_save": ["classifier"]}, "roberta": {"task_type": "SEQ_CLS"}}


OWN: dict[type, dict[str, Any]] = {RosaConfig: {"every": 1}, RobustConfig: {"density": 0.05, "collect_steps": 2}}
CALLBACK = {RosaConfig: rosa.ResampleCallback, RobustConfig: rosa.SupportCallback}
both = pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])


def config_of(kind: type, **options: Any) -> RosaConfig | RobustConfig:
    return kind(**{"r": 2, **OWN[kind], **options})


def wrapped(name: str, seed: int = 0, kind: type = RosaConfig, **options: Any) -> PeftModel:
    model = build(name).train()
    torch.manual_seed(seed)
    return get_peft_model(model, config_of(kind, **{**HEAD.get(name, {}), **options}))


def assert_course(trainer: Any, kind: type) -> None:
    """Resamples were when they are due, or the positions of the sparse parts were chosen and their values trained."""
    if kind is RosaConfig:
        assert resamples(trainer) == DUE
        return
    found = support.supported(trainer.model).values()
    assert found
    assert all(bool((adapter.index >= 0).all()) for adapter in found)
    assert all(bool(adapter.factors()["values"].detach().any()) for adapter in found)


def saved(model: PeftModel) -> dict[str, torch.Tensor]:
    return get_peft_model_state_dict(model)


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


# --- Transformers' Trainer -------------------------------------------------------------------------------------------


@pytest.mark.spread
@both
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_the_trainer_trains_as_with_rosa_attach(name, tmp_path, kind):
    model = wrapped(name, kind=kind)
    trainer = trainer_for(name, model, tmp_path, CALLBACK[kind]())
    trainer.train()
    assert_course(trainer, kind)
    torch.manual_seed(0)
    head = ["classifier"] if name == "bert" else "train"
    plain = rosa.attach(build(name).train(), kind.METHOD(rank=2, head=head, **OWN[kind]), verbose=False)
    other = trainer_for(name, plain, tmp_path, CALLBACK[kind]())
    other.train()
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (trainer, other)]
    assert len(losses[0]) == UPDATES
    assert losses[0] == losses[1]
    assert torch.equal(logits(model.eval(), name), logits(plain.eval(), name))


JOINT = {"collect_steps": 3}
WARMUP = {"schedule": "warmup", "warmup_steps": 2}


STOPS = [
    *((RosaConfig, "bert", stop, {}) for stop in (2, 3, 4, 7)),
    *((RosaConfig, name, 4, {}) for name in ("gpt2", "t5")),
    *((RobustConfig, "bert", stop, JOINT) for stop in (1, 2, 3, 4)),  # in the collection, at its end, and after it
    *((RobustConfig, "gpt2", stop, WARMUP) for stop in (1, 2, 3, 4)),
    (RobustConfig, "bert", 3, {**WARMUP, "restart": True}),
    (RobustConfig, "t5", 1, {"schedule": "sparse_only"}),
]


@pytest.mark.parametrize(
    ("kind", "name", "stop", "options"),
    slow_but([(RosaConfig, "bert", 4, {}), (RobustConfig, "bert", 2, JOINT)], STOPS),
)
def test_a_resumed_training_is_the_uninterrupted_one(kind, name, stop, options, tmp_path):
    def model(seed: int = 0) -> nn.Module:
        return with_dropout(wrapped(name, seed, kind, **options))

    whole = trainer_for(name, model(), tmp_path / "whole", CALLBACK[kind]())
    whole.train()
    assert_course(whole, kind)
    part = trainer_for(name, model(), tmp_path / "part", CALLBACK[kind](), StopAfter(stop))
    early = kind is RobustConfig and stop < {"warmup": 4}.get(
        options.get("schedule", ""), options.get("collect_steps", 2)
    )
    with pytest.warns(UserWarning, match="before the support was chosen") if early else contextlib.nullcontext():
        part.train()
    checkpoint = tmp_path / "part" / f"checkpoint-{stop}"
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()

    # Another process: other factors at first, which the checkpoint's own must replace.
    resumed = trainer_for(name, model(seed=1), tmp_path / "part", CALLBACK[kind]())
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == UPDATES
    assert_course(resumed, kind)
    assert timeless(resumed.state.log_history) == timeless(whole.state.log_history)
    assert_equal(saved(resumed.model), saved(whole.model))
    for one, other in zip(optimizer_states(resumed), optimizer_states(whole), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


@both
def test_the_best_model_at_the_end_is_the_earlier_one(tmp_path, kind):
    model = wrapped("bert", kind=kind)
    _, outputs = ended_with_the_best("bert", model, tmp_path, CALLBACK[kind]())
    assert torch.equal(logits(model, "bert"), outputs)
    assert relative_difference(logits(model.merge_and_unload(), "bert"), outputs) <= 1e-5


@pytest.mark.spread
@both
@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(name, reentrant, tmp_path, kind):
    ends = []
    for options in (
        {},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}},
    ):
        trainer = trainer_for(name, wrapped(name, kind=kind), tmp_path, CALLBACK[kind](), **options)
        trainer.train()
        ends.append(logits(trainer.model.eval(), name))
    assert relative_difference(ends[1], ends[0]) <= 1e-4


def gradients(name: str, kind: type, reentrant: bool | None) -> dict[str, torch.Tensor | None]:
    """The gradient of each factor of a model of images, sound or both; ``reentrant=None`` is without checkpointing."""
    torch.manual_seed(0)
    base, inputs = MODELS[name]()
    model = get_peft_model(base, config_of(kind)).train()
    give_support(model)
    perturb(model)
    if reentrant is not None:
        checkpointed(model, reentrant)
    model(**inputs).loss.backward()
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.spread
@both
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["vit", "whisper", "clip"])
def test_gradient_checkpointing_of_models_without_token_embeddings(name, reentrant, kind):
    expected, actual = gradients(name, kind, None), gradients(name, kind, reentrant)
    assert [key for key, gradient in actual.items() if gradient is None] == []
    for key, gradient in expected.items():
        if float(gradient.abs().max()) > 1e-6:
            assert relative_difference(actual[key], gradient) < 1e-4, key


def test_unloading_leaves_no_hook_of_checkpointing():
    base, inputs = MODELS["vit"]()
    model = get_peft_model(base, RosaConfig(r=2)).train()
    model.add_adapter("second", RosaConfig(r=2))
    checkpointed(model, reentrant=True)
    assert [len(module._forward_pre_hooks) for module in base.modules() if module._forward_pre_hooks] == [1]
    model(**inputs).loss.backward()
    plain = model.merge_and_unload()
    assert not any(module._forward_pre_hooks for module in plain.modules())


@both
def test_a_bfloat16_backbone_trains_under_the_trainers_autocast(tmp_path, kind):
    model = build("gpt2").to(torch.bfloat16).train()
    torch.manual_seed(0)
    expected = logits(build("gpt2").to(torch.bfloat16), "gpt2")
    model = get_peft_model(model, config_of(kind))
    trainer = trainer_for("gpt2", model, tmp_path, CALLBACK[kind](), bf16=True)
    trainer.train()
    assert_course(trainer, kind)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3])
    with model.eval().disable_adapter():
        assert torch.equal(logits(model, "gpt2"), expected)


# --- compiled, and in several processes ------------------------------------------------------------------------------


@pytest.mark.slow
@both
@pytest.mark.parametrize("compiled_first", [False, True])
def test_a_compiled_model_follows_a_change_of_course(compiled_first, kind):
    """Compiled around PEFT's model, and (the base alone) before it."""
    torch._dynamo.reset()
    if compiled_first:
        base = build("bert")
        base.bert.encoder = torch.compile(base.bert.encoder, backend="eager")
        torch.manual_seed(0)
        compiled = model = get_peft_model(base, config_of(kind)).eval()
    else:
        model = wrapped("bert", kind=kind).eval()
        compiled = torch.compile(model, backend="eager")
    for step in range(2):
        if step and kind is RosaConfig:
            rosa.resample(compiled)
        elif step:
            give_support(model)
        perturb(model)
        out = logits(compiled, "bert")
        with torch.compiler.set_stance("force_eager"):
            assert torch.equal(out, logits(model, "bert"))
    if kind is RosaConfig:
        before = logits(compiled, "bert")
        rosa.resample(compiled)
        assert relative_difference(logits(compiled, "bert"), before) <= 1e-5


def _train(model: nn.Module) -> None:
    """Four updates by AdamW, with a resample before the second and the fourth."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(4):
        if step in (1, 3):
            rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        optimizer.zero_grad()
        model(**batch("roberta", seed=step)).loss.backward()
        optimizer.step()


def _train_in_a_group(rank: int, folder: Path) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = wrapped("roberta", seed=rank)  # another seed in each process: DDP hands out the first one's
    _train(DistributedDataParallel(model))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({"state": state, "saved": saved(model)}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_resample_after_wrapping_and_hold_the_same_adapter(tmp_path):
    together(_train_in_a_group, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    history = [name for name in first["state"] if name.endswith("_extra_state")]
    assert len(history) == 8
    for name in history:  # the first start is each process's own draw; the main process saves, and its A and B are used
        assert torch.equal(first["state"][name][1:], second["state"][name][1:])
    others = [name for name in first["state"] if name not in history]
    assert all(torch.equal(first["state"][name], second["state"][name]) for name in others)
    # Alone, one process comes to the same: both halves of the batch are equal.
    model = wrapped("roberta")
    _train(model)
    loaded = wrapped("roberta", seed=1)
    loaded.load_state_dict(first["state"])
    assert relative_difference(logits(loaded.eval(), "roberta"), logits(model.eval(), "roberta")) <= 1e-5
    # What the main process saved restores its model.
    again = wrapped("roberta", seed=2)
    set_peft_model_state_dict(again, first["saved"])
    assert torch.equal(logits(again.eval(), "roberta"), logits(loaded.eval(), "roberta"))


def _choose_in_a_group(rank: int, folder: Path) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = wrapped("bert", seed=rank, kind=RobustConfig)
    parallel = DistributedDataParallel(model)
    positions_and_updates(model, parallel, [rank, rank + 2])
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def positions_and_updates(model: nn.Module, parallel: nn.Module, seeds: list[int], both_halves: bool = False) -> None:
    """Positions from the first batch, or two batches; then an update on each of the others."""
    collector = Collector(support.supported(parallel), "gradient_squared")
    collector.start()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-1)
    halves = 2 if both_halves else 1
    for update in range(2):
        optimizer.zero_grad()
        for half in range(halves):
            (parallel(**batch("bert", seed=seeds[update] + half)).loss / halves).backward()
        if update == 0:
            collector.end_update()
            support.choose(parallel, collector.scores)
            collector.stop()
        else:
            optimizer.step()


@pytest.mark.slow
def test_two_processes_choose_the_positions_that_one_chooses(tmp_path):
    together(_choose_in_a_group, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = wrapped("bert", kind=RobustConfig)
    positions_and_updates(alone, alone, [0, 2], both_halves=True)
    state = alone.state_dict()
    index = [name for name in state if name.endswith(".index")]
    assert len(index) == 8
    assert all(torch.equal(first[name], state[name]) for name in index)
    assert all(relative_difference(first[name], state[name]) <= 1e-4 for name in state if name not in index)


# --- accelerate ------------------------------------------------------------------------------------------------------


def accelerated(folder: Path, steps: range, resume: bool, kind: type) -> nn.Module:
    """A plain loop, whose state is saved after update 3 or loaded from there."""
    accelerator = Accelerator(cpu=True)
    set_seed(0)
    model = wrapped("roberta", seed=int(resume), kind=kind)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loader = DataLoader(examples("roberta"), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if resume:
        accelerator.load_state(str(folder))
    rows = list(loader)
    for step in steps:
        if step == 1 and kind is RobustConfig:
            give_support(model)
        if step % 2 == 0 and step and kind is RosaConfig:
            rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        accelerator.backward(model(**rows[step % len(rows)]).loss)
        optimizer.step()
        optimizer.zero_grad()
        if step == 2 and not resume:
            accelerator.save_state(str(folder))
    return accelerator.unwrap_model(model)


@both
def test_a_loop_with_accelerate_resumes(tmp_path, kind):
    whole = accelerated(tmp_path, range(6), resume=False, kind=kind)
    resumed = accelerated(tmp_path, range(3, 6), resume=True, kind=kind)
    assert_equal(saved(resumed), saved(whole))
    assert torch.equal(logits(resumed, "roberta"), logits(whole, "roberta"))


# --- TRL -------------------------------------------------------------------------------------------------------------

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed ([trl])")

SETTINGS: dict[str, Any] = {
    "num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1,
    "save_strategy": "epoch", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0, "bf16": False,
    "max_length": 32,
}  # fmt: skip


def texts(count: int = 12) -> list[str]:
    return [" ".join(f"w{(i + k) % 20}" for k in range(8)) for i in range(count)]


@needs_trl
@pytest.mark.slow
@both
@pytest.mark.parametrize("through", ["model", "peft_config"])
def test_sft_trainer(through, tmp_path, kind):
    from trl import SFTConfig, SFTTrainer

    config = config_of(kind, task_type="CAUSAL_LM")
    base = causal.build_model()
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=get_peft_model(base, config) if through == "model" else base,
        peft_config=config if through == "peft_config" else None,
        args=SFTConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=Dataset.from_dict({"text": texts()}),
        processing_class=causal.build_tokenizer(),
        callbacks=[CALLBACK[kind]()],
    )
    trainer.train()
    assert_course(trainer, kind)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3])
    tokens = torch.arange(3, 10)[None]
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=tokens).logits
        loaded = PeftModel.from_pretrained(causal.build_model(), tmp_path / f"checkpoint-{UPDATES}")
        assert torch.equal(loaded(input_ids=tokens).logits, expected)
        with trainer.model.disable_adapter():
            assert torch.equal(trainer.model(input_ids=tokens).logits, causal.build_model()(input_ids=tokens).logits)


@needs_trl
@pytest.mark.slow
@both
def test_dpo_trainer_takes_the_untouched_base_as_reference(tmp_path, kind):
    """Its reference is the model with adapters disabled; its log probabilities must be those of the pretrained one."""
    from trl import DPOConfig, DPOTrainer

    rows = {"prompt": texts(), "chosen": [f" w{i}" for i in range(12)], "rejected": [f" w{i + 12}" for i in range(12)]}
    torch.manual_seed(0)
    trainer = DPOTrainer(
        model=causal.build_model(),
        args=DPOConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=Dataset.from_dict(rows),
        processing_class=causal.build_tokenizer(),
        peft_config=config_of(kind, task_type="CAUSAL_LM"),
        callbacks=[CALLBACK[kind]()],
    )
    assert trainer.ref_model is None
    trainer.train()
    assert_course(trainer, kind)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference are one at the start
    assert losses[-1] < losses[0]
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    tokens = torch.arange(3, 10)[None]
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=tokens).logits, causal.build_model()(input_ids=tokens).logits)
