"""Runs of RoSA (robust adaptation): first pass, restart, resuming around both, and several processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rosa import records
from rosa.adapters.support import FILE
from rosa.config import Config
from rosa.run import run
from rosa.run.earlier import CHECKPOINTS
from tests.conftest import Composer
from tests.run.test_distributed import assert_close, in_place, launch
from tests.run.test_resume import folder_of, interrupted_then_resumed, results
from tests.run.test_run import spied

COMMON = ("method=robust", "method.rank=4", "method.density=0.02", "train.log_steps=2", "train.keep=last")
SCHEDULES = {
    "joint": ("method.collect_steps=3",),
    "sparse_only": ("method.schedule=sparse_only", "method.collect_steps=3"),
    "warmup": ("method.schedule=warmup", "method.warmup_steps=4", "method.collect_steps=3"),
    "restart": ("method.schedule=warmup", "method.warmup_steps=4", "method.collect_steps=3", "method.restart=true"),
}


def weights(config: Config) -> dict[str, Tensor]:
    return load_file(folder_of(config) / "last.safetensors")


def assert_same_weights(one: Config, other: Config) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("schedule", ["joint", "sparse_only", "restart"])
def test_a_run_that_starts_over_is_the_run_that_is_given_its_support(
    schedule: str, composed: Composer, tmp_path: Path
) -> None:
    config = composed(*COMMON, *SCHEDULES[schedule])
    record = run(config, "command", progress=False).record
    assert record["status"] == "done"
    assert [entry["step"] for entry in record["training"]] == [2 * i for i in range(1, 10)]
    kept = folder_of(config) / FILE
    kind = "sparse_only" if schedule == "sparse_only" else "joint"
    given = composed(*COMMON, f"method.schedule={kind}", f"method.support={kept}")
    theirs = run(given, "command", progress=False).record
    assert_same_weights(config, given)
    assert record["metrics"] == theirs["metrics"]
    assert record["training"] == theirs["training"]
    assert record["diagnostics"] == theirs["diagnostics"]
    assert (folder_of(given) / FILE).read_bytes() == kept.read_bytes()


def test_a_record_says_where_and_how_dense_the_support_is(composed: Composer) -> None:
    config = composed(*COMMON, "method.density_pattern={query:0.1}")
    record = run(config, "command", progress=False).record
    records.read(folder_of(config) / records.RECORD)
    found = record["diagnostics"]["support"]
    assert len(found["sha256"]) == 64
    shapes = {layer["name"]: layer["shape"] for layer in record["adapted"]}
    assert [layer["name"] for layer in found["layers"]] == list(shapes)
    for layer in found["layers"]:
        size = shapes[layer["name"]][0] * shapes[layer["name"]][1]
        assert layer["entries"] == int((0.1 if layer["name"].endswith("query") else 0.02) * size)
        assert layer["density"] == layer["entries"] / size
    entries = sum(layer["entries"] for layer in found["layers"])
    low_rank = sum(4 * sum(shape) for shape in shapes.values())
    assert record["params"]["trainable"] == entries + low_rank


@pytest.mark.parametrize(
    ("schedule", "stops"),
    [
        # Of 18 updates, six an epoch.
        ("warmup", [2]),  # before the collection
        ("warmup", [5]),  # in it
        ("warmup", [4, 6, 7, 12]),  # before, in, just after, and much later
        ("joint", [2]),  # in the first pass
        ("restart", [3]),
        ("restart", [5, 6]),
    ],
)
def test_interrupted_run_ends_as_uninterrupted(
    schedule: str, stops: list[int], composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*COMMON, *SCHEDULES[schedule], "method.dropout=0.1")
    whole = dataclasses.replace(config, results_dir=str(tmp_path / "whole"))
    expected = run(whole, "command", progress=False).record
    resumed = interrupted_then_resumed(config, stops, monkeypatch)
    assert results(resumed) == results(expected)
    assert_same_weights(config, whole)
    assert (folder_of(config) / FILE).read_bytes() == (folder_of(whole) / FILE).read_bytes()
    assert not (folder_of(config) / CHECKPOINTS).exists()


def test_a_restarted_run_is_resumed_after_its_restart(
    composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops twice at update 6: before the restart, and after it."""
    config = composed(*COMMON, *SCHEDULES["restart"])
    whole = dataclasses.replace(config, results_dir=str(tmp_path / "whole"))
    expected = run(whole, "command", progress=False).record
    resumed = interrupted_then_resumed(config, [6, 6, 13], monkeypatch)
    assert results(resumed) == results(expected)
    assert_same_weights(config, whole)


@pytest.mark.parametrize("schedule", ["joint", "warmup"])
def test_two_processes_share_one_support_and_end_as_one(schedule: str, undropped: Composer, tmp_path: Path) -> None:
    config = undropped(*COMMON, *SCHEDULES[schedule], "train.log_steps=1")
    alone = in_place(config, tmp_path / "alone")
    one = run(alone, "command", progress=False).record
    assert launch(config, config) == ["done", "done"]
    several = records.read(folder_of(config) / records.RECORD)
    assert several["diagnostics"]["support"] == one["diagnostics"]["support"]
    assert_close(results(several), results(one))
    ours, theirs = weights(config), weights(alone)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


def test_accumulated_batches_choose_the_support_of_one(undropped: Composer, tmp_path: Path) -> None:
    config = undropped(*COMMON, *SCHEDULES["warmup"], "train.batch_size=16")
    halves = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=8, accumulation=2))
    one, two = (
        run(in_place(c, tmp_path / name), "command", progress=False).record
        for name, c in (("one", config), ("two", halves))
    )
    assert one["diagnostics"]["support"] == two["diagnostics"]["support"]


def test_the_sparse_values_train_at_their_own_rate(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    from rosa.training import trainer as module

    made: list[torch.optim.Optimizer] = []
    create = module.HarnessTrainer.create_optimizer

    def creating(self: Any, model: Any = None) -> Any:
        made.append(create(self, model))
        return made[-1]

    monkeypatch.setattr(module.HarnessTrainer, "create_optimizer", creating)
    spy = spied(monkeypatch)
    config = composed(*COMMON, "method.lr_sparse=0.25")
    run(config, "command", progress=False)
    optimizer = made[-1]
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, config.train.weight_decay}
    sparse = [group for group in optimizer.param_groups if group["initial_lr"] == 0.25 * config.train.lr]
    rest = [group for group in optimizer.param_groups if group not in sparse]
    assert {group["initial_lr"] for group in rest} == {config.train.lr}
    assert sum(len(group["params"]) for group in sparse) == 8
    assert all(parameter.dim() == 1 for group in sparse for parameter in group["params"])
    assert max(spy.rates) == config.train.lr  # what is logged is the rate of the rest


def test_the_head_trains_beside_the_sparse_part(composed: Composer) -> None:
    config = composed(*COMMON, "train.keep=both")
    record = run(config, "command", progress=False).record
    assert record["params"]["head"] > 0
    first, last = (load_file(folder_of(config) / f"{rule}.safetensors") for rule in ("best", "last"))
    heads = [name for name in last if name.startswith("classifier")]
    assert heads
    if record["metrics"]["best"]["epoch"] != record["metrics"]["last"]["epoch"]:
        assert all(not torch.equal(first[name], last[name]) for name in heads)
    values = [tensor for name, tensor in last.items() if name.endswith("values")]
    assert all(bool(tensor.any()) for tensor in values)
