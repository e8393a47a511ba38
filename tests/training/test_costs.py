"""The costs of a run: peaks of memory, bytes of parameters, and times of steps by a clock that tests move."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from rosa.training import costs

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's peak is reset on Linux only")


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- memory ----------------------------------------------------------------------------------------------------------


@LINUX
def test_the_peak_of_the_host_follows_a_large_block_and_a_reset():
    size = 200 * 2**20
    costs.reset_peak_memory("cpu")
    before = costs.peak_memory("cpu")
    if not before["host_peak_reset"]:
        pytest.skip("this kernel does not allow a process to reset its own peak")
    block = torch.ones(size, dtype=torch.uint8)
    with_block = costs.peak_memory("cpu")["host_bytes"]
    del block
    after = costs.peak_memory("cpu")["host_bytes"]
    costs.reset_peak_memory("cpu")
    reset = costs.peak_memory("cpu")

    assert before["device_bytes"] is None
    assert 0.9 * size < with_block - before["host_bytes"] < 1.2 * size
    assert after > with_block - 0.1 * size  # a peak stays; the kernel counts in batches of pages
    assert reset["host_bytes"] < with_block - 0.9 * size
    assert reset["host_peak_reset"] is True


def test_the_first_run_of_a_process_says_so(monkeypatch):
    monkeypatch.setattr(costs, "_resets", 0)
    for first in (True, False):
        costs.reset_peak_memory("cpu")
        assert costs.peak_memory("cpu")["first_of_process"] is first


def test_a_refused_reset_is_said(monkeypatch):
    def refuse(self: Path, text: str) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "write_text", refuse)
    costs.reset_peak_memory("cpu")
    measured = costs.peak_memory("cpu")
    assert measured["host_peak_reset"] is False
    assert measured["host_bytes"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_of_the_device_follows_a_large_block_and_a_reset():
    size = 64 * 2**20
    costs.reset_peak_memory("cuda")
    before = costs.peak_memory("cuda")["device_bytes"]
    block = torch.ones(size, dtype=torch.uint8, device="cuda")
    assert costs.peak_memory("cuda")["device_bytes"] - before == size
    del block
    costs.reset_peak_memory("cuda")
    assert costs.peak_memory("cuda")["device_bytes"] == before


def test_parameter_memory_counts_each_part_apart_and_a_shared_weight_once():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(10, 20), "b": torch.nn.Linear(10, 20, dtype=torch.bfloat16)})
    model["c"] = torch.nn.Linear(10, 20)
    model["c"].weight = model["a"].weight
    model["d"] = torch.nn.BatchNorm1d(5, affine=False)  # buffers alone: 5 means, 5 variances, one int64 counter
    for parameter in model["b"].parameters():
        parameter.requires_grad_(False)
    float32, bfloat16, buffers = 4 * (200 + 20 + 20), 2 * 220, 4 * 10 + 8
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    assert costs.parameter_memory(model, optimizer) == {
        "weights_bytes": float32 + bfloat16 + buffers,
        "gradients_bytes": 0,
        "optimizer_state_bytes": 0,
    }
    (model["a"](torch.ones(1, 10)) + model["c"](torch.ones(1, 10))).sum().backward()
    optimizer.step()
    after = costs.parameter_memory(model, optimizer)
    assert after["gradients_bytes"] == float32
    assert after["optimizer_state_bytes"] == 2 * float32 + 3 * 4  # two moments, and a float32 step count a tensor
    assert costs.parameter_memory(model)["optimizer_state_bytes"] == 0


def test_the_memory_of_an_optimizer_counts_tensors_however_deep_they_lie():
    """As those of L-BFGS, whose state has lists of them beside numbers."""
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    step = torch.ones(6)
    optimizer.state[layer.weight] = {"calls": 2, "old": [step, (step.double(), "none")], "flat": {"now": step}}
    assert costs.parameter_memory(layer, optimizer)["optimizer_state_bytes"] == 6 * (4 + 8 + 4)


def test_memory_above_the_baseline_follows_a_large_block():
    size = 200 * 2**20
    costs.reset_peak_memory("cpu")
    before = costs.memory_above_baseline("cpu")
    if before is None:
        pytest.skip("this system does not report a process's resident memory")
    block = torch.ones(size, dtype=torch.uint8)
    assert 0.9 * size < costs.memory_above_baseline("cpu") - before < 1.2 * size
    costs.reset_peak_memory("cpu")
    assert abs(costs.memory_above_baseline("cpu")) < 0.1 * size, "the block is in the new baseline"
    del block


def test_samples_of_memory_give_their_maximum_mean_and_percentile():
    meter = costs.CostMeter()
    assert meter.summary()["memory_max_bytes"] is None
    samples = [(7 * i) % 200 - 20 for i in range(200)]  # -20 to 179, in another order
    for number in samples[:100]:
        meter.memory(number)
    resumed = costs.CostMeter()
    resumed.load(json.loads(json.dumps(meter.state())))
    for number in samples[100:]:
        resumed.memory(number)
    found = resumed.summary()
    assert found["memory_max_bytes"] == 179
    assert found["memory_mean_bytes"] == round(sum(samples) / 200)
    assert found["memory_p99_bytes"] == sorted(samples)[197]


def test_a_checkpoint_without_samples_can_be_resumed():
    state = costs.CostMeter().state()
    del state["memory"]
    meter = costs.CostMeter()
    meter.load(state)
    assert meter.summary()["memory_mean_bytes"] is None


# --- time ------------------------------------------------------------------------------------------------------------


def train(meter: costs.CostMeter, clock: Clock, *steps: float, between: float = 0.0) -> None:
    """Steps of so many seconds, with the reading of a batch ``between`` them."""
    for seconds in steps:
        clock.now += between
        meter.step_begin()
        clock.now += seconds
        meter.step_end(examples=4, tokens=100)


def test_steps_run_from_end_to_end_and_other_work_is_apart():
    clock = Clock()
    meter = costs.CostMeter(clock)
    meter.start()
    train(meter, clock, 1.0, 1.0, between=0.5)  # the first from its begin: 1.0, the second with its batch: 1.5
    clock.now += 7.0
    meter.evaluation(7.0)
    train(meter, clock, 2.0, between=0.5)  # from its own begin: 2.0
    clock.now += 3.0
    meter.pause()  # a checkpoint
    meter.step_begin()
    clock.now += 5.0
    meter.resample(5.0)  # within a step: its time starts again after it
    train(meter, clock, 4.0)

    summary = meter.summary()
    assert summary["steps"] == 4
    assert summary["seconds_per_step_median"] == pytest.approx((1.5 + 2.0) / 2)
    assert summary["seconds_per_step_mean"] == pytest.approx((1.0 + 1.5 + 2.0 + 4.0) / 4)
    assert summary["examples_per_second"] == pytest.approx(16 / 8.5)
    assert summary["tokens_per_second"] == pytest.approx(400 / 8.5)
    assert (summary["resamples"], summary["seconds_in_resamples"]) == (1, 5.0)
    assert (summary["evaluations"], summary["seconds_in_evaluations"]) == (1, 7.0)
    assert summary["seconds_total"] == pytest.approx(clock.now - 100.0)
    assert summary["seconds_without_evaluations"] == pytest.approx(clock.now - 107.0)


def test_the_wait_for_batches_counts_where_it_is_a_part_of_a_step():
    clock = Clock()
    meter = costs.CostMeter(clock)
    meter.start()
    meter.loading(9.0)  # before the first step, whose time starts at its begin
    train(meter, clock, 1.0)
    meter.loading(0.5)
    train(meter, clock, 1.0, between=0.5)
    meter.evaluation(7.0)
    meter.loading(0.5)  # after an evaluation, too
    train(meter, clock, 2.0, between=0.5)
    checkpoint = json.loads(json.dumps(meter.state()))
    for state, expected in ((checkpoint, 0.5), ({**checkpoint, "seconds_in_loading": 0.25}, 0.25)):
        resumed = costs.CostMeter()
        resumed.load(state)
        assert resumed.summary()["seconds_in_loading"] == expected
    del checkpoint["seconds_in_loading"]  # of an earlier version
    resumed.load(checkpoint)
    assert resumed.summary()["seconds_in_loading"] == 0
    assert meter.summary()["seconds_in_loading"] == 0.5
    assert meter.summary()["seconds_in_steps"] == pytest.approx(1.0 + 1.5 + 2.0)


def test_a_resumed_meter_ends_like_an_uninterrupted_one():
    clock = Clock()
    whole = costs.CostMeter(clock)
    whole.start()
    train(whole, clock, 1.0, 3.0)
    whole.resample(0.25)
    checkpoint = json.loads(json.dumps(whole.state()))

    later = Clock()
    later.now = 5.0  # another process, another origin of time
    resumed = costs.CostMeter(later)
    resumed.load(checkpoint)
    resumed.start()
    for meter, its_clock in ((whole, clock), (resumed, later)):
        train(meter, its_clock, 2.0, 8.0)
        meter.evaluation(0.5)
    assert resumed.summary() == whole.summary()
    assert resumed.summary()["seconds_per_step_median"] == 2.5


def test_nothing_measured_is_none_and_not_zero():
    summary = costs.CostMeter().summary()
    json.dumps(summary)
    for key in ("seconds_per_step_median", "seconds_per_step_mean", "examples_per_second", "tokens_per_second"):
        assert summary[key] is None
    assert summary["seconds_per_resample_median"] is None
    assert summary["steps"] == 0


def test_a_step_that_never_began_is_refused():
    meter = costs.CostMeter()
    meter.start()
    with pytest.raises(AssertionError, match="without step_begin"):
        meter.step_end(examples=1, tokens=1)
