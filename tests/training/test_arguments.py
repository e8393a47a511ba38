"""Arguments of the Trainer: one device per process, and no stream of examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from rosa.config import TrainConfig
from rosa.errors import DataError, ProcessesError
from rosa.run import run
from rosa.training import trainer as trainer_module
from rosa.training.arguments import training_arguments
from rosa.training.batches import lengths
from tests.conftest import Composer


def test_one_process_trains_on_one_device_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the Trainer wraps the model in DataParallel, with batches of four times the size."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    config = TrainConfig(device="cuda", precision="fp32", batch_size=32)
    arguments = training_arguments(config, tmp_path, seed=0, updates=10)
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 32
    assert arguments.eval_batch_size == config.evaluation_batch_size


def test_batches_of_another_size_than_asked_for_are_refused(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = training_arguments

    def of_two_devices(*args: Any) -> Any:
        arguments = make(*args)
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setattr(trainer_module, "training_arguments", of_two_devices)
    with pytest.raises(
        ProcessesError, match=r"train.batch_size=16, .* batches of 32 \(1 processes with 2 devices each\)"
    ):
        run(composed("method=lora"), "command", progress=False)


class Stream(torch.utils.data.IterableDataset[int]):
    """No examples."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


@pytest.mark.parametrize(
    "stream", [datasets.IterableDataset.from_generator(lambda: iter(())), Stream()], ids=["a", "b"]
)
def test_a_stream_says_what_is_wanted(stream: Any) -> None:
    with pytest.raises(DataError, match=r"a stream without a length.*datasets.Dataset first.*unit='step'"):
        lengths(stream)
