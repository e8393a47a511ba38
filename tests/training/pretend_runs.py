"""Train small runs on the CPU and on the pretend device, and print their results as JSON, one line per run.

``python -m tests.training.pretend_runs ROBERTA GPT2 FOLDER``: folders of the two tiny models, and of the runs. Runs in
a process of its own, because the pretend device stays registered until the process ends.

On the CPU a run is not interrupted. On the device it is stopped by a signal and resumes from its checkpoint; its
weights then decode, on both devices.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers import TrainerCallback, TrainingArguments, training_args

from rosa import models, records
from rosa.config import Config, register
from rosa.errors import InterruptedRun
from rosa.evaluation.generation.decode import decode
from rosa.run import run
from rosa.run.folder import selected_weights
from rosa.run.reload import restore
from rosa.training import arguments, trainer
from tests.composing import compose_config
from tests.run.test_resume import StopAfter
from tests.training import pretend_device

METHODS: dict[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("method.rank=2",),
    "ia3": (),
    "rosa": ("method.rank=2", "method.every=1"),
    "robust": ("method.rank=2", "method.collect_steps=2"),
}
CASES = (
    *((method, precision, "e2e") for method in METHODS for precision in ("fp32", "bf16")),
    *(("rosa", precision, "cola") for precision in ("fp32", "bf16")),
)
"""Method, precision and task of the runs; each is done on both devices."""
UPDATES = 4
"""Of each run, in two epochs: two of three batches, the second of which is of one batch alone."""
STOPS: dict[str, tuple[int, ...]] = {**dict.fromkeys(METHODS, (3,)), "robust": (1, 3)}
"""Updates after which a run on the device is stopped: after a resample, or before and after the support is chosen."""
COMMON = (
    *("model=folder", "model.name=tiny", "logger=none", "train.device=cpu", "train.epochs=2", "train.batch_size=8"),
    *("train.accumulation=2", "train.lr=1e-3", "train.log_steps=1"),
)
DATA = {
    "cola": ("data.train_size=24", "data.evaluation_size=8"),
    "e2e": (
        *("data.train_size=6", "data.evaluation_size=2", "task.test=''"),
        *("decoding.beams=2", "decoding.max_new_tokens=4"),
    ),
}


def config(folder: Path, model: Path, *overrides: str) -> Config:
    """The configuration of a small run under a folder."""
    paths = (f"model.path={model}", f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}")
    return compose_config(*overrides, *COMMON, *paths)


class CountingCallback(TrainerCallback):
    """Counts the waits from the end of an update's preparations, such as a resample, to its own end."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pretend_device.count(False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pretend_device.count(True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pretend_device.count(False)


@contextmanager
def on_the_pretend_device(stop: int) -> Iterator[None]:
    """Have the Trainer take the pretend device, count the waits inside its updates, and stop after one (0: none)."""
    made, available = arguments.TrainingArguments, training_args.is_torch_bf16_gpu_available
    # The model is loaded outside: its head is drawn by other kernels where operators are looked at.
    held = {
        "__init__": pretend_device.available,
        "train": pretend_device.available,
        "get_batch_samples": pretend_device.counting,
    }
    stock = {name: getattr(trainer.HarnessTrainer, name) for name in held}

    def within(method: Callable[..., Any], context: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with context():
                result = method(*args, **kwargs)
            if method is stock["__init__"]:
                args[0].add_callback(CountingCallback())
                args[0].callback_handler.callbacks.insert(0, StopAfter(stop))
            return result

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
    """What a run's record says of its training."""
    AcceleratorState._reset_state(reset_partial_state=True)  # or the first run's device is every run's
    record = run(settings, "a test", progress=False).record
    return {
        "losses": [entry["loss"] for entry in record["training"]],
        "scores": [score for evaluation in record["history"] for score in evaluation["validation"].values()],
        "resamples": len(record["resamples"]),
    }


def stopped_and_resumed(settings: Config, stops: tuple[int, ...]) -> dict[str, Any]:
    """What :func:`outcome` says of a run on the device that is stopped after some of its updates, and its waits."""
    pretend_device.waits.clear()
    for stop in stops:
        with on_the_pretend_device(stop):
            try:
                outcome(settings)
            except InterruptedRun:
                continue
            raise AssertionError(f"the run was not stopped after update {stop}")
    with on_the_pretend_device(0):
        return outcome(settings) | {"waits": dict(pretend_device.waits)}


def decoded(settings: Config) -> dict[str, list[list[int]]]:
    """What a finished run's weights, in the run's precision, write after three prompts on each device."""
    model, tokenizer, _ = models.load(settings.model, settings.task, settings.seed)
    restore(model, settings.method, selected_weights(settings, records.folder(settings)))
    model.to(torch.bfloat16 if settings.train.precision == "bf16" else torch.float32)
    found = {}
    for device in ("cpu", pretend_device.NAME):
        with pretend_device.available():
            written = decode(
                model.to(device), tokenizer, ["w0 w1", "w2 w3 w4", "w5"], settings.decoding, progress=False
            )
        found[device] = [list(one.tokens) for one in written.continuations]
    return found


def main() -> None:
    """Do the runs."""
    roberta, gpt2, folder = (Path(argument) for argument in sys.argv[1:])
    register()
    torch.set_num_threads(1)
    alive = pretend_device.register()
    gc.freeze()  # a Trainer collects garbage when it starts, among which the imports' objects are none
    for method, precision, task in CASES:
        overrides = (f"task={task}", f"method={method}", f"train.precision={precision}", *METHODS[method], *DATA[task])
        here = config(folder / "cpu", gpt2 if task == "e2e" else roberta, *overrides)
        there = dataclasses.replace(here, results_dir=str(folder / pretend_device.NAME))
        case = {"method": method, "precision": precision, "task": task}
        print(json.dumps(case | {"device": "cpu"} | outcome(here)), flush=True)
        found = stopped_and_resumed(there, STOPS[method])
        if task == "e2e":
            found["decoded"] = decoded(there)
        print(json.dumps(case | {"device": pretend_device.NAME} | found), flush=True)
    del alive


if __name__ == "__main__":
    main()
