"""Train small runs on the CPU and on the pretend device, and print their results as JSON, one line per run.

``python -m tests.training.pretend_runs ROBERTA GPT2 FOLDER``: folders of the two tiny models, and of the runs. Runs in
a process of its own, because the pretend device stays registered until the process ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers import TrainingArguments, training_args

from rosa.config import Config, register
from rosa.run import run
from rosa.training import arguments, trainer
from tests.composing import compose_config
from tests.training import pretend_device

CASES = tuple(
    (method, precision, task)
    for method in ("full", "lora", "ia3", "rosa", "robust")
    for precision, task in (("fp32", "cola"), ("bf16", "cola"), ("fp32", "e2e"))
    if task == "cola" or method in ("full", "rosa")
)
"""Method, precision and task of the runs; each is done on both devices."""
COMMON = (
    *("model=folder", "model.name=tiny", "logger=none", "data.train_size=80", "data.evaluation_size=32"),
    *("train.epochs=2", "train.batch_size=16", "train.accumulation=2", "train.device=cpu", "train.lr=1e-3"),
    "train.log_steps=1",
)


def config(folder: Path, model: Path, *overrides: str) -> Config:
    """The configuration of a small run under a folder."""
    paths = (f"model.path={model}", f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}")
    return compose_config(*COMMON, *paths, *overrides)


@contextmanager
def on_the_pretend_device() -> Iterator[None]:
    """Have the Trainer take the pretend device, and count the waits inside its updates."""
    made, available = arguments.TrainingArguments, training_args.is_torch_bf16_gpu_available
    # The model is loaded outside: its head is drawn by other kernels where operators are looked at.
    held = {
        "__init__": pretend_device.available,
        "train": pretend_device.available,
        "training_step": pretend_device.counting,
        "get_batch_samples": pretend_device.counting,
    }
    stock = {name: getattr(trainer.HarnessTrainer, name) for name in held}

    def within(method: Callable[..., Any], context: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with context():
                return method(*args, **kwargs)

        return call

    def make(**settings: Any) -> TrainingArguments:
        moving = {"accelerator_config": {"non_blocking": True}}  # as with train.device=cuda
        return made(**{**settings, "use_cpu": False, **moving})

    arguments.TrainingArguments = make  # type: ignore[assignment, misc]
    training_args.is_torch_bf16_gpu_available = lambda: True  # it asks CUDA, and others by name
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{pretend_device.NAME}:0"
    for name, method in stock.items():
        setattr(trainer.HarnessTrainer, name, within(method, held[name]))
    try:
        yield
    finally:
        arguments.TrainingArguments = made  # type: ignore[misc]
        training_args.is_torch_bf16_gpu_available = available
        del os.environ["ACCELERATE_TORCH_DEVICE"]
        for name, method in stock.items():
            setattr(trainer.HarnessTrainer, name, method)


def outcome(settings: Config) -> dict[str, Any]:
    """The training part of a run's record, and the waits of its updates."""
    AcceleratorState._reset_state(reset_partial_state=True)  # or the first run's device is every run's
    pretend_device.waits.clear()
    record = run(settings, "a test", progress=False).record
    return {
        "losses": [entry["loss"] for entry in record["training"]],
        "scores": [list(evaluation["validation"].values()) for evaluation in record["history"]],
        "resamples": len(record["resamples"]),
        "waits": dict(pretend_device.waits),
    }


def main() -> None:
    """Do the runs."""
    roberta, gpt2, folder = (Path(argument) for argument in sys.argv[1:])
    register()
    torch.set_num_threads(1)
    alive = pretend_device.register()
    for method, precision, task in CASES:
        frequency = ("method.every=1",) if method == "rosa" else ()
        texts = ("task.test=", "data.train_size=24", "data.evaluation_size=8") if task == "e2e" else ()
        overrides = (f"task={task}", f"method={method}", f"train.precision={precision}", *frequency, *texts)
        for device, place in (("cpu", nullcontext()), (pretend_device.NAME, on_the_pretend_device())):
            with place:
                found = outcome(config(folder / device, gpt2 if task == "e2e" else roberta, *overrides))
            case = {"method": method, "precision": precision, "task": task, "device": device}
            print(json.dumps(case | found), flush=True)
    del alive


if __name__ == "__main__":
    main()
