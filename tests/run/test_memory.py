"""Out of memory: the error in the record, and that the override it names makes the same updates."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rosa import records
from rosa.adapters import attach, resample
from rosa.config import Config, DecodingConfig, RosaConfig
from rosa.errors import OutOfMemoryError, RosaError
from rosa.run import memory, pipeline, run
from rosa.training import HarnessTrainer
from rosa.utils.console import run_command
from tests.conftest import Composer
from tests.run.test_resume import folder_of


def real_failure() -> None:
    """PyTorch's own error for the CPU."""
    torch.empty(2**60, dtype=torch.uint8)


def cuda_failure() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")


def python_failure() -> None:
    raise MemoryError


def failed(config: Config) -> str:
    with pytest.raises(OutOfMemoryError) as raised:
        run(config, "command", progress=False)
    record = records.read(folder_of(config) / records.RECORD)
    assert (record["status"], record["error"]["type"]) == ("failed", "OutOfMemoryError")
    assert record["error"]["message"] == str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("failure", [real_failure, cuda_failure, python_failure])
def test_training_out_of_memory_names_the_half_of_the_batch(
    failure: Any, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(HarnessTrainer, "compute_loss", lambda *args, **kwargs: failure())
        said = failed(composed())
    assert said.startswith(
        "out of memory in training: model=tiny method=rosa train.batch_size=16 train.accumulation=1 "
        "train.max_length=512 train.precision=fp32 ("
    )
    assert said.endswith("Try train.batch_size=8 train.accumulation=2: updates of as many examples")
    words = re.findall(r"train\.\w+=\d+", said.rpartition("Try ")[2])
    whole, halves = (run(composed(*more), "command", progress=False).record for more in ((), words))
    assert halves["costs"]["steps"] == whole["costs"]["steps"]
    assert halves["costs"]["examples"] == whole["costs"]["examples"]


def test_evaluation_out_of_memory_names_its_own_batch(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HarnessTrainer, "prediction_step", lambda *args, **kwargs: real_failure())
    said = failed(composed())
    assert said.startswith("out of memory in evaluation: model=tiny method=rosa train.evaluation_batch_size=64 ")
    assert said.endswith("Try train.evaluation_batch_size=32: it changes no score")


def test_a_model_that_does_not_fit(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.build, "gather", lambda *args: real_failure())
    assert failed(composed()).startswith("out of memory in set-up: ")


def test_other_errors_stay_what_they_are(composed: Composer) -> None:
    for error in (RuntimeError("CUDA error: device-side assert"), ValueError("out of memory"), KeyError("x")):
        with pytest.raises(type(error)), memory.explained(composed()):
            raise error


@pytest.mark.parametrize(
    ("batch", "processes", "parts"),
    [(16, 1, 2), (15, 1, 3), (7, 1, 7), (1, 1, None), (12, 3, 2), (9, 3, 3), (4, 4, None)],
)
def test_a_batch_falls_in_parts_that_the_processes_can_share(batch: int, processes: int, parts: int | None) -> None:
    assert memory.parts_of(batch, processes) == parts


def test_where_nothing_is_left_to_halve(composed: Composer) -> None:
    config = composed("train.batch_size=1", "train.evaluation_batch_size=1")
    config = dataclasses.replace(config, decoding=DecodingConfig(batch_size=1))
    for doing in ("training", "evaluation", "decoding", "set-up"):
        assert "smaller model" in memory.advice(config, doing)
    config = dataclasses.replace(config, decoding=DecodingConfig(batch_size=5))
    assert memory.advice(config, "decoding").startswith("Try decoding.batch_size=2:")


def test_every_process_says_that_its_memory_was_not_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise OutOfMemoryError("too much")

    def other() -> int:
        raise RosaError("said by the main process")

    monkeypatch.setattr("rosa.utils.distributed.SPEAKING_SECONDS", 0)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (run_command(main), run_command(other)) == (1, 2)
    assert capsys.readouterr().err.splitlines()[0] == "error: too much"


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_two_hundred_resamples_do_not_grow_the_memory() -> None:
    """One matrix kept per resample would add up to 30 MB here."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(128, 128) for _ in range(4)])
    attach(model, RosaConfig(rank=4, targets=["*"], optimizer_state="reset"), verbose=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    stream = torch.Generator().manual_seed(0)
    sizes = []
    for _ in range(200):
        model(torch.ones(2, 128)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        resample(model, generator=stream, optimizer=optimizer)
        sizes.append(resident())
    assert len(optimizer.state) <= 8
    assert max(sizes[150:]) - max(sizes[:50]) < 4 * 2**20, [size // 2**20 for size in sizes[::20]]
