"""A run on several processes equals that of one process: the same updates, one record, no other files."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from rosa import records
from rosa.config import Config
from rosa.errors import ConfigError
from rosa.run import build, pipeline, run
from rosa.run import folder as folder_module
from rosa.run.earlier import CHECKPOINTS
from rosa.sweep import slurm
from rosa.training import find_checkpoint
from rosa.training import trainer as trainer_module
from rosa.training.batches import BatchShares, EpochSampler
from rosa.utils import distributed, heartbeat
from tests.commands import begin
from tests.conftest import Composer
from tests.processes import forking
from tests.run.conftest import SHAPE
from tests.run.test_resume import StopAfter, folder_of, results

ENDING_SECONDS = 90
"""The longest that a process may take to end after its answer, on a machine that has other things to do."""
ROSA = ("method=rosa", "method.rank=4", "method.every=4", "method.unit=step")
ROUGHLY: dict[str, dict[str, float]] = {"rank": {"abs": 1}, "effective_rank": {"rel": 1e-2}}
"""Diagnostics of the singular values above a threshold, across which one rounding can move a value."""


# --- starting processes ----------------------------------------------------------------------------------------------


def follow(
    environment: Mapping[str, str], config: Config, stop_at: int, answer: Any, prepare: Callable[[], None] | None
) -> None:
    """Do the run in a launched process, and send its outcome; it may be asked to stop at an update."""
    os.environ.update(environment)
    faulthandler.dump_traceback_later(ENDING_SECONDS)  # should it hang, where
    if prepare is not None:
        prepare()
    build = pipeline.build_trainer

    def stopping(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.callback_handler.callbacks.insert(0, StopAfter(stop_at))
        return trainer

    pipeline.build_trainer = stopping
    try:
        outcome = run(config, "command", progress=False)
        answer.send("skipped" if outcome.skipped else "done")
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    faulthandler.dump_traceback_later(ENDING_SECONDS - 10)  # should it not end, where it hangs


def launch(
    *configs: Config, stops: Mapping[int, int] | None = None, prepare: Callable[[], None] | None = None
) -> list[str]:
    """One process for each configuration, all of one run, and how each ended.

    ``stops``: at which update by rank; ``prepare``: called in each process first.
    """
    # From a server that has imported everything: torchrun itself would import it again for each process.
    running = start_processes(forking(), configs, stops or {}, prepare)
    answers = [answer_of(ours) for _, ours in running]
    for process, _ in running:
        process.join(ENDING_SECONDS)
        if process.is_alive():
            process.kill()
            answers.append("did not end")
    return answers


def start_processes(
    context: Any, configs: Sequence[Config], stops: Mapping[int, int], prepare: Callable[[], None] | None
) -> list[tuple[Any, Any]]:
    """The processes of a run, each with the connection on which it says how it ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(configs))}
    running = []
    for rank, config in enumerate(configs):
        ours, theirs = context.Pipe()
        environment = {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(target=follow, args=(environment, config, stops.get(rank, 0), theirs, prepare))
        process.start()
        theirs.close()
        running.append((process, ours))
    return running


def answer_of(connection: Any) -> str:
    """The outcome that a process sent; ``died`` if it ended without one, ``silent`` if it did not end."""
    try:
        return connection.recv() if connection.poll(100) else "silent"
    except EOFError:
        return "died"


def in_place(config: Config, folder: Path) -> Config:
    return dataclasses.replace(config, results_dir=str(folder))


def files(config: Config) -> set[str]:
    folder = folder_of(config)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [1, 2, 11, 12, 13, 97])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shares_are_the_batch(examples: int, count: int) -> None:
    order = EpochSampler([1] * examples, 12, group=False, seed=0)
    shares = [BatchShares(order, 12, rank, count) for rank in range(count)]
    parts = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(part) for part in parts} == {-(-examples // 12)}
    for number in range(len(shares[0])):
        whole = list(order)[12 * number : 12 * (number + 1)]
        last = number == len(shares[0]) - 1
        counted = [
            part[number] for part, share in zip(parts, shares, strict=True) if not (last and share.ends_with_stand_in)
        ]
        assert sorted(chain.from_iterable(counted)) == sorted(whole)
        assert max(map(len, counted)) - min(map(len, counted)) <= 1
        assert all(set(part[number]) <= set(whole) and part[number] for part in parts)


@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_accumulated_batches_make_the_update_of_one(task: str, undropped: Composer, tmp_path: Path) -> None:
    """The last update of an epoch has 13 examples: 8 and 5."""
    config = undropped(f"task={task}", "data.train_size=109", "train.batch_size=16")
    halves = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=8, accumulation=2))
    one = run(in_place(config, tmp_path / "one"), "command", progress=False).record
    two = run(in_place(halves, tmp_path / "two"), "command", progress=False).record
    assert len(one["training"]) == 14
    for name in ("loss", "grad_norm"):
        expected = [entry[name] for entry in one["training"]]
        assert [entry[name] for entry in two["training"]] == pytest.approx(expected, rel=1e-4)
    assert two["costs"]["examples"] == 2 * 109


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "count"), [(ROSA, 3), (("method=full", "train.accumulation=2"), 2)])
def test_several_processes_are_as_one(
    overrides: tuple[str, ...], count: int, undropped: Composer, tmp_path: Path
) -> None:
    config = undropped(*overrides, "train.keep=last")
    alone = in_place(config, tmp_path / "alone")
    one = run(alone, "command", progress=False).record
    assert launch(*[config] * count) == ["done"] * count
    several = records.read(folder_of(config) / records.RECORD)
    assert several["status"] == "done"
    assert (one["environment"]["processes"], several["environment"]["processes"]) == (1, count)
    assert several["identity"] == one["identity"]
    assert files(config) == files(alone)
    for name in ("steps", "examples"):
        assert several["costs"][name] == one["costs"][name]
    assert one["costs"]["examples"] == 2 * 98
    assert 0 < several["costs"]["tokens"] <= one["costs"]["tokens"], "a part of a batch is never padded to more"
    assert_close(results(several), results(one))
    assert all(layer["norm"] > 0 for layer in several["diagnostics"].get("layers", []))
    ours, theirs = (load_file(folder_of(c) / "last.safetensors") for c in (config, alone))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        if not name.endswith((".A", ".B")):  # a singular vector and its negative are the same subspace
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)
    assert launch(*[config] * count) == ["skipped"] * count


def in_double() -> None:
    """Train in float64, in which another order of a sum changes the sixteenth digit."""
    gather = build.gather

    def gathering(*args: Any) -> Any:
        parts = gather(*args)
        parts.model.double()
        return parts

    build.gather = gathering


def merged(path: Path, layer: str) -> torch.Tensor:
    """W_f + A B of a layer of a file of weights."""
    tensors = load_file(path)
    return tensors[f"{layer}.base.weight"] + tensors[f"{layer}.A"] @ tensors[f"{layer}.B"]


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full"])
def test_two_and_three_processes_are_one_to_a_millionth(method: str, undropped: Composer, tmp_path: Path) -> None:
    """Over four resamples; float32's own rounding, which Adam's division makes larger, is kept out."""
    words = {"rosa": ROSA, "lora": ("method=lora", "method.rank=4")}.get(method, (f"method={method}",))
    config = undropped(*words, "train.keep=last")
    folders = {count: in_place(config, tmp_path / str(count)) for count in ((1, 2, 3) if method == "rosa" else (1, 2))}
    for count, where in folders.items():
        assert launch(*[where] * count, prepare=in_double) == ["done"] * count
    found = {count: records.read(folder_of(where) / records.RECORD) for count, where in folders.items()}
    weights = {count: folder_of(where) / "last.safetensors" for count, where in folders.items()}
    one = load_file(weights[1])
    assert {tensor.dtype for name, tensor in one.items() if name.endswith("weight")} <= {torch.float64}
    assert len(found[1]["resamples"]) == (4 if method == "rosa" else 0)
    for count in list(folders)[1:]:
        ours, theirs = results(found[count]), results(found[1])
        for kind in ("history", "training"):
            assert_close(ours[kind], theirs[kind], rel=1e-6, abs=1e-6)
        for name, tensor in load_file(weights[count]).items():
            if name.endswith(".A") and method == "rosa":
                layer = name.removesuffix(".A")
                torch.testing.assert_close(merged(weights[count], layer), merged(weights[1], layer), rtol=0, atol=1e-6)
            elif not name.endswith(".B") or method != "rosa":  # a singular vector's sign is open
                torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-6)


def watching_writers() -> None:
    """Fail in every process but the main one while it writes a checkpoint's weights."""
    save = trainer_module.save_weights

    def saving(model: Any, path: Path) -> None:
        assert distributed.is_main(), "two processes would write into one file at once"
        save(model, path)

    trainer_module.save_weights = saving


def test_the_first_process_alone_writes_checkpoints(composed: Composer) -> None:
    config = composed(*SHAPE, *ROSA, "train.epochs=1", "train.save_steps=2")
    assert launch(config, config, prepare=watching_writers) == ["done", "done"]


# --- a process that dies ---------------------------------------------------------------------------------------------


class Falls(TrainerCallback):
    """Sends a signal to its own process after an update."""

    def __init__(self, rank: int, number: signal.Signals) -> None:
        self.rank = rank
        self.number = number

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5 and distributed.rank() == self.rank:
            os.kill(os.getpid(), self.number)


def falling(rank: int, number: signal.Signals, interval: float) -> None:
    """Let the process of this rank fall, with a heartbeat of this interval."""
    heartbeat.INTERVAL_SECONDS = interval
    make = pipeline.build_trainer

    def building(*args: Any, **kwargs: Any) -> Any:
        trainer = make(*args, **kwargs)
        trainer.add_callback(Falls(rank, number))
        return trainer

    pipeline.build_trainer = building


@pytest.mark.parametrize(("count", "rank"), [(2, 1), (3, 1), (2, 0)])
def test_a_killed_process_ends_the_run(count: int, rank: int, composed: Composer) -> None:
    """At once, since the system closes its connections; the run goes on afterwards."""
    config = composed(*SHAPE, *ROSA, "train.save_steps=2")
    start = time.monotonic()
    answers = launch(*[config] * count, prepare=partial(falling, rank, signal.SIGKILL, 4.0))
    assert time.monotonic() - start < 60, answers
    assert answers.pop(rank) == "died"
    for answer in answers:
        assert re.match(r"ProcessesError: process \d of \d lost the connection to another one", answer), answer
    record = records.read(folder_of(config) / records.RECORD)
    if rank:
        assert record["status"] == "failed"
        assert f"ProcessesError: {record['error']['message']}" == answers[0]
    assert launch(config) == ["done"], "one process goes on alone"


@pytest.mark.parametrize("rank", [1, 0])
def test_a_process_that_hangs_ends_the_run(rank: int, composed: Composer) -> None:
    """As a machine that fails: its connections stay open, and the others wait in an operation that nothing ends."""
    config = composed(*SHAPE, *ROSA)
    running = start_processes(forking(), [config, config], {}, partial(falling, rank, signal.SIGSTOP, 0.2))
    (frozen, _), (other, answer) = running[rank], running[1 - rank]
    other.join(60)
    ended = other.exitcode
    for process in (frozen, other):
        process.kill()
        process.join()
    assert ended == 1
    assert answer_of(answer) == "died", "it could not say more than it has printed"
    record = records.read(folder_of(config) / records.RECORD)
    if rank:
        assert record["status"] == "failed"
        assert re.match(r"process 1 on \S+, of 2, has not answered for 2 seconds", record["error"]["message"])


def assert_close(found: Any, expected: Any, rel: float = 2e-4, abs: float = 1e-6) -> None:
    """Parts of two records are the same up to rounding; the ranks of changes roughly, whose norms tell."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            if key in ROUGHLY:
                assert found[key] == pytest.approx(expected[key], **ROUGHLY[key]), key
            else:
                assert_close(found[key], expected[key], rel, abs)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, rel, abs)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=abs)
    else:
        assert found == expected


def test_all_stop_after_the_same_update_and_go_on(composed: Composer, tmp_path: Path) -> None:
    """With dropout, whose streams, one a process, must go on where they were."""
    config = composed(*SHAPE, "method=lora", "method.rank=4", "method.dropout=0.1", "train.log_steps=4")
    whole = in_place(config, tmp_path / "whole")
    assert launch(whole, whole) == ["done", "done"]
    stopped = "InterruptedRun: stopped at step 6 of 18; run it again to resume"
    assert launch(config, config, stops={1: 6}) == [stopped, stopped], "the first one was not told"
    checkpoint = find_checkpoint(folder_of(config) / CHECKPOINTS)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-6"
    assert records.read(folder_of(config) / records.RECORD)["status"] == "running"
    assert launch(config, config) == ["done", "done"]
    record, other = (records.read(folder_of(c) / records.RECORD) for c in (config, whole))
    # The losses since the last line of the log are kept as their mean, which is rounded.
    for entry, expected in zip(record["training"], other["training"], strict=True):
        assert entry.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
    assert results(record) == results(other)
    assert files(config) == files(whole)


def test_a_process_that_cannot_start_fails_the_run(composed: Composer, tmp_path: Path) -> None:
    config = composed(*SHAPE)
    lost = dataclasses.replace(config, data=dataclasses.replace(config.data, source="local", dir=str(tmp_path / "no")))
    first, second = launch(config, lost)
    assert second.startswith("DataError: ")
    assert first == f"ProcessesError: process 1 of 2: {second}"
    record = records.read(folder_of(config) / records.RECORD)
    assert record["status"] == "failed"
    assert f"ProcessesError: {record['error']['message']}" == first


def test_a_run_that_another_command_is_doing_is_left_alone_by_all(composed: Composer) -> None:
    config = composed(*SHAPE)
    with folder_module.locked(folder_of(config)):
        first, second = launch(config, config)
    assert first.startswith("BusyError: ")
    assert second == f"ProcessesError: main process: {first}"
    assert files(config) == {records.LOCK}


@pytest.mark.parametrize(("size", "nearest"), [(13, "12 or 15"), (2, "3")])
def test_batch_that_cannot_be_shared(
    size: int, nearest: str, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(f"train.batch_size={size}")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigError, match=rf"train\.batch_size={size} with 3 processes: expected a multiple of 3, such as {nearest},"
    ):
        run(config, "command", progress=False)
    assert not folder_of(config).exists()


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refused = pytest.raises(distributed.ProcessesError, match="2 processes on this machine, but 1 GPUs")
    with refused, distributed.joined("cuda"):
        raise AssertionError("it was joined")


def test_tasks_of_a_job_are_the_processes_of_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dict(os.environ)
    job = {"EXECUTOR": "local", "LOCAL_JOB_ID": "7", "LOCAL_NTASKS": "2", "LOCAL_GLOBALID": "1", "LOCAL_LOCALID": "1"}
    monkeypatch.setattr(os, "environ", plain | {f"SUBMITIT_{name}": value for name, value in job.items()})
    assert (distributed.launched(), distributed.count(), distributed.rank()) == (False, 1, 0)
    slurm._join_tasks()
    assert (distributed.launched(), distributed.count(), distributed.rank()) == (True, 2, 1)


def test_a_job_of_one_task_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"}
    monkeypatch.setattr(os, "environ", dict(os.environ) | job)
    slurm._join_tasks()
    assert not distributed.launched()


# --- the command -----------------------------------------------------------------------------------------------------


TORCHRUN = """
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

from tests.command_server import Forked

subprocess_handler.Popen = Forked
main()
"""
"""As it is installed, but its processes are forked, so that none imports PyTorch again."""


def test_torchrun_hands_a_signal_on(composed: Composer, tmp_path: Path, tiny_model: Path) -> None:
    """SIGTERM to the launcher, and to its processes as a batch system sends it, so that each gets it twice."""
    overrides = [
        "model=folder", "model.name=tiny", f"model.path={tiny_model}", "train.device=cpu", "logger=none",
        *SHAPE, *ROSA, "train.epochs=20", "train.save_steps=2",
    ]  # fmt: skip
    config = composed(*SHAPE, *ROSA, "train.epochs=20", "train.save_steps=2")
    torchrun = tmp_path / "torchrun.py"
    torchrun.write_text(TORCHRUN)
    launcher = (torchrun, "--standalone", "--nproc-per-node=2")
    process = begin(*launcher, "scripts/train.py", *overrides, f"results_dir={config.results_dir}")
    while process.poll() is None and not any((folder_of(config) / CHECKPOINTS).glob("*/manifest.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    ended = process.end()
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert said.count("run it again to resume") == 1, said
    assert records.read(folder_of(config) / records.RECORD)["status"] == "running"
    checkpoint = find_checkpoint(folder_of(config) / CHECKPOINTS)
    assert checkpoint is not None
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}
    assert "Warning" not in said
