"""After SIGKILL at random moments, the resumed run ends bit for bit like an uninterrupted one.

Each method, kind of task and precision, on models of a few thousand weights on the CPU. A trial is one kill; a run is
killed twice before it may end, the second time after it was resumed. ``ROSA_KILLS`` asks for more trials a case.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import hashlib
import os
import random
import signal
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rosa import records
from rosa.config import Config
from rosa.run import pipeline, run
from rosa.run.earlier import CHECKPOINTS
from rosa.run.folder import WEIGHTS
from rosa.training import manifest
from tests import causal
from tests.conftest import composer
from tests.processes import forking
from tests.run.test_resume import folder_of, results

KILLS = int(os.environ.get("ROSA_KILLS", "2"))
"""Trials of each case; an even number."""
SECONDS = 120
"""The longest that a killed process may take to be killed, on a machine that has other things to do."""
METHODS = {
    "full": ["method=full"],
    "lora": ["method=lora", "method.rank=2", "method.dropout=0.1"],
    "ia3": ["method=ia3"],
    "rosa": ["method=rosa", "method.rank=2", "method.every=2", "method.unit=step"],
    "robust": ["method=robust", "method.rank=2", "method.collect_steps=2"],
}
KINDS = {
    "classification": ["task=cola", "data.train_size=32", "data.evaluation_size=16", "train.batch_size=8"],
    "regression": ["task=stsb", "data.train_size=32", "data.evaluation_size=16", "train.batch_size=8"],
    "generation": ["task=e2e", "task.test=''", "data=local", "data.limit=16", "train.batch_size=4"],
}
"""Four updates an epoch."""
CASES = [
    (method, kind, precision)
    for method in METHODS
    for kind in (KINDS if method != "robust" else ["classification"])  # RoSA starts over: twice the updates
    for precision in ("fp32", "bf16")
]
SHARED = ["train.epochs=2", "train.log_steps=1", "train.save_steps=1", "train.threads=1"]
MOMENTS = ("begin", "middle", "end", "evaluation", "writing", "sealing", "sealed")
"""Before an update; after its backward pass; after it; after an evaluation; while the state of the random numbers is
half written; while the files of a checkpoint reach the disk; after its manifest was written."""


# --- dying -----------------------------------------------------------------------------------------------------------


class Death(TrainerCallback):
    """Kills this process at the first moment of a kind at or after a number of updates; at the latest when training
    ends."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.moment = draw.choice(MOMENTS)
        self.step = -1
        self.steps = 0

    def comes(self, moment: str) -> None:
        if moment == "last" or (moment == self.moment and 0 <= self.step <= self.steps):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.global_step
        self.step = self.draw.randrange(state.global_step, state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.global_step
        self.comes("begin")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.global_step
        self.comes("end")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.comes("evaluation")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.comes("last")


def die(config: Config, seed: int) -> None:
    """Do the run in this process, and kill it at a random moment."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    death = Death(random.Random(seed))
    build, save, to_disk, seal = pipeline.build_trainer, torch.save, manifest._to_disk, manifest.seal

    def building(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.callback_handler.callbacks.insert(0, death)
        step = trainer.training_step

        def training_step(*args: Any, **kwargs: Any) -> Any:
            loss = step(*args, **kwargs)
            death.comes("middle")
            return loss

        trainer.training_step = training_step
        return trainer

    def saving(value: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        save(value, path, *args, **kwargs)
        if "rng_state" in str(path) and death.moment == "writing":
            os.truncate(path, Path(path).stat().st_size // 2)
            death.comes("writing")
            save(value, path, *args, **kwargs)

    def reaching(path: Path) -> None:
        to_disk(path)
        if path.name == "optimizer.pt":
            death.comes("sealing")

    def sealing(folder: Path) -> None:
        seal(folder)
        death.comes("sealed")

    pipeline.build_trainer, torch.save = building, saving
    manifest._to_disk, manifest.seal = reaching, sealing
    run(config, "command", progress=False)


def killed(config: Config, seed: int) -> None:
    """Do a run in a process that is killed at a random moment."""
    process = forking().Process(target=die, args=(config, seed))  # the imports take longer than a run
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"seed {seed}: the run ended before it could be killed"


# --- the trials ------------------------------------------------------------------------------------------------------


def hashes(config: Config) -> dict[str, str]:
    """SHA-256 of the weights that a run keeps."""
    return {
        name: hashlib.sha256((folder_of(config) / name).read_bytes()).hexdigest() for name in sorted(WEIGHTS.values())
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, list[str]]:
    """Overrides of a model and its data for each kind of task."""
    e2e = causal.write_e2e(tmp_path_factory.mktemp("e2e"))
    checkpoint = causal.save_for_e2e(tmp_path_factory.mktemp("checkpoint"))
    encoder = [f"model.path={tiny_model}"]
    return {
        "classification": encoder,
        "regression": encoder,
        "generation": [f"model.path={checkpoint}", f"data.dir={e2e}"],
    }


@pytest.mark.parametrize(("method", "kind", "precision"), CASES)
def test_a_killed_run_ends_as_one_left_alone(
    method: str, kind: str, precision: str, models: dict[str, list[str]], tiny_model: Path, tmp_path: Path
) -> None:
    words = [*KINDS[kind], *METHODS[method], *SHARED, *models[kind], f"train.precision={precision}"]
    alone = composer(tmp_path / "alone", tiny_model)(*words)
    whole = run(alone, "command", progress=False).record
    assert whole["costs"]["steps"] == 8
    assert len(whole["training"]) == 8
    for chain in range(KILLS // 2):
        config = dataclasses.replace(alone, results_dir=str(tmp_path / f"killed-{chain}"))
        for kill in range(2):
            killed(config, seed=zlib.crc32(f"{method} {kind} {precision} {chain} {kill}".encode()))
        assert records.read(folder_of(config) / records.RECORD)["status"] == "running"
        record = run(config, "command", progress=False).record
        assert hashes(config) == hashes(alone)
        assert results(record) == results(whole)
        assert not (folder_of(config) / CHECKPOINTS).exists()
