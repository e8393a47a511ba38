"""Do small runs on the CPU and on the pretend device, and print their results as JSON, one line per run.

``python -m tests.training.pretend_runs ROBERTA GPT2 FOLDER``: folders of the two tiny models, and of the runs. Runs in
a process of its own, because the pretend device stays registered until the process ends.

On the CPU a run is not interrupted. On the device all of it is done there, with ``train.device=pretend`` where a user
would say ``cuda``; a run is stopped by a signal and resumes from its checkpoint, and its weights then decode or
predict, on both devices.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState
from transformers import TrainerCallback

from rosa import models, records
from rosa.config import Config, checks, register
from rosa.errors import InterruptedRun
from rosa.evaluation.generation.decode import decode
from rosa.run import pipeline, reload, run
from rosa.run.folder import selected_weights
from rosa.run.predict import predict
from rosa.run.reload import restore
from rosa.training import trainer
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
    ("rosa", "fp32", "stsb"),
    ("rosa", "fp32", "gsm8k"),
    ("robust", "fp32", "viggo"),
    ("lora", "fp32", "sql"),
)
"""Method, precision and task of the runs; each is done on both devices."""
UPDATES = 4
"""Of each run, in two epochs: two of three batches, the second of which is of one batch alone."""
STOPS: dict[str, tuple[int, ...]] = {**dict.fromkeys(METHODS, (3,)), "robust": (1, 3)}
"""Updates after which a run on the device is stopped: after a resample, or before and after the support is chosen."""
COMMON = (
    *("model=folder", "model.name=tiny", "logger=none", "train.device=cpu", "train.epochs=2", "train.batch_size=8"),
    *("train.accumulation=2", "train.lr=1e-3", "train.log_steps=1", "train.forgetting=true"),
)
LABELLED = ("cola", "stsb")
LABELS = ("data.train_size=24", "data.evaluation_size=8")
DECODED = ("decoding.max_new_tokens=4",)
DATA = {
    **dict.fromkeys(LABELLED, LABELS),
    "e2e": ("data.train_size=6", "data.evaluation_size=2", "task.test=''", "decoding.beams=2", *DECODED),
    **dict.fromkeys(("gsm8k", "viggo", "sql"), ("data.train_size=24", "data.evaluation_size=2", *DECODED)),
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
def known_device() -> Iterator[None]:
    """Let ``train.device=pretend`` be asked for wherever ``cuda`` can, and be found."""
    choice = checks.choice

    def choose(key: str, value: str, options: tuple[str, ...]) -> None:
        choice(key, value, (*options, pretend_device.NAME) if key == "train.device" else options)

    with ExitStack() as patches:
        patches.enter_context(mock.patch("rosa.config.train.choice", choose))
        for module in ("device", "predict", "decode"):
            patches.enter_context(mock.patch(f"rosa.run.{module}.device_for", lambda asked: asked))
        # It asks CUDA, and others by name.
        patches.enter_context(mock.patch("transformers.training_args.is_torch_bf16_gpu_available", return_value=True))
        patches.enter_context(pretend_device.available())
        yield


@contextmanager
def waits_counted(stop: int) -> Iterator[None]:
    """On the device: count the waits inside a run's updates, and stop it after one of them (0: none)."""
    build, batches = pipeline.build_trainer, trainer.HarnessTrainer.get_batch_samples

    def watched(*args: Any, **options: Any) -> Any:
        made = build(*args, **options)
        made.add_callback(CountingCallback())
        made.callback_handler.callbacks.insert(0, StopAfter(stop))
        return made

    def counted(*args: Any, **options: Any) -> Any:
        with pretend_device.counting():
            return batches(*args, **options)

    with (
        mock.patch.object(pipeline, "build_trainer", watched),
        mock.patch.object(trainer.HarnessTrainer, "get_batch_samples", counted),
        mock.patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=f"{pretend_device.NAME}:0"),
    ):
        yield


def outcome(settings: Config) -> dict[str, Any]:
    """What a run's record says of its training, and of its test split where it has one."""
    AcceleratorState._reset_state(reset_partial_state=True)  # or the first run's device is every run's
    record = run(settings, "a test", progress=False).record
    texts = record["generation"] or {}
    return {
        "losses": [entry["loss"] for entry in record["training"]],
        "scores": [score for evaluation in record["history"] for score in evaluation["validation"].values()],
        "resamples": len(record["resamples"]),
        "diagnostics": dict(numbers(record["diagnostics"])),
        "texts": {key: texts.get(key) for key in ("hypotheses", "scores")},
        "perplexities": dict(numbers(texts.get("perplexities") or {})),
    }


def numbers(node: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a part of a record, without times, by their places."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        if isinstance(value, (int, float)) and "seconds" not in f"{place} {key}":
            yield f"{place} {key}", float(value)
        yield from numbers(value, f"{place} {key}")


def stopped_and_resumed(settings: Config, stops: tuple[int, ...]) -> dict[str, Any]:
    """What :func:`outcome` says of a run on the device that is stopped after some of its updates, and its waits."""
    pretend_device.waits.clear()
    for stop in stops:
        with waits_counted(stop):
            try:
                outcome(settings)
            except InterruptedRun:
                continue
            raise AssertionError(f"the run was not stopped after update {stop}")
    with waits_counted(0):
        return outcome(settings) | {"waits": dict(pretend_device.waits)}


def decoded(settings: Config) -> dict[str, list[list[int]]]:
    """What a finished run's weights, in the run's precision, write after three prompts on each device."""
    model, tokenizer, _ = models.load(settings.model, settings.task, settings.seed)
    restore(model, settings.method, selected_weights(settings, records.folder(settings)))
    model.to(torch.bfloat16 if settings.train.precision == "bf16" else torch.float32)
    found = {}
    for device in ("cpu", pretend_device.NAME):
        written = decode(model.to(device), tokenizer, ["w0 w1", "w2 w3 w4", "w5"], settings.decoding, progress=False)
        found[device] = [list(one.tokens) for one in written.continuations]
    return found


def predicted(settings: Config) -> list[float]:
    """What a finished run's weights predict for two texts, on the run's device."""
    done = reload.load(records.folder(settings))
    texts = [["a dog sees the cat", "the cat"]] * len(settings.task.texts)
    found = predict(done, texts)
    assert done.plain.device.type == settings.train.device
    return [float(value) for value in (found.values if found.probabilities is None else found.probabilities[:, 0])]


def main() -> None:
    """Do the runs."""
    roberta, gpt2, folder = (Path(argument) for argument in sys.argv[1:])
    register()
    torch.set_num_threads(1)
    alive = pretend_device.register()
    gc.freeze()  # a Trainer collects garbage when it starts, among which the imports' objects are none
    with known_device():
        for method, precision, task in CASES:
            overrides = (f"task={task}", f"method={method}", f"train.precision={precision}", *METHODS[method])
            labels = task in LABELLED
            here = config(folder / "cpu", roberta if labels else gpt2, *overrides, *DATA[task])
            moved = dataclasses.replace(here.train, device=pretend_device.NAME)
            there = dataclasses.replace(here, results_dir=str(folder / pretend_device.NAME), train=moved)
            case = {"method": method, "precision": precision, "task": task}
            found = {"cpu": outcome(here), pretend_device.NAME: stopped_and_resumed(there, STOPS[method])}
            for device, one in zip(found, (here, there), strict=True):
                if labels:
                    found[device]["predicted"] = predicted(one)
            if task == "e2e":
                found[pretend_device.NAME]["decoded"] = decoded(there)
            for device, result in found.items():
                print(json.dumps(case | {"device": device} | result), flush=True)
    del alive


if __name__ == "__main__":
    main()
