"""An interrupted and resumed run has the record of an uninterrupted one."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from rosa import records
from rosa.config import Config
from rosa.errors import InterruptedRun
from rosa.run import run
from rosa.run.device import resolve
from rosa.run.earlier import CHECKPOINTS
from rosa.training import find_checkpoint
from tests.commands import begin
from tests.conftest import Composer

METHODS = {
    "rosa": ("method=rosa", "method.every=1", "method.rank=4"),
    "rosa-steps": ("method=rosa", "method.every=4", "method.unit=step", "method.rank=4"),
    "rosa-random": ("method=rosa", "method.every=1", "method.rank=4", "method.factorization=random_add",
                    "method.optimizer_state=prune", "method.rewarm_steps=3"),
    "lora": ("method=lora", "method.rank=4", "method.dropout=0.1"),
    "ia3": ("method=ia3",),
    "full": ("method=full",),
}  # fmt: skip


class StopAfter(TrainerCallback):
    """Asks the run to stop, as a signal does, after a given number of updates."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs between two bytecodes


def interrupted_then_resumed(config: Config, stops: list[int], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from rosa.run import pipeline as module

    build = module.build_trainer
    for step in stops:

        def stopping(*args: Any, step: int = step, **kwargs: Any) -> Any:
            trainer = build(*args, **kwargs)
            trainer.callback_handler.callbacks.insert(0, StopAfter(step))
            return trainer

        monkeypatch.setattr(module, "build_trainer", stopping)
        with pytest.raises(InterruptedRun):
            run(config, "command", progress=False)
        checkpoint = find_checkpoint(folder_of(config) / CHECKPOINTS)
        assert checkpoint is not None
        assert records.read(folder_of(config) / "record.json")["status"] == "running"
    monkeypatch.setattr(module, "build_trainer", build)
    return run(config, "command", progress=False).record


def folder_of(config: Config) -> Path:
    return records.folder(resolve(config)[0])


def results(record: dict[str, Any]) -> dict[str, Any]:
    """The parts of a record that must not depend on an interruption: all but times and file names."""
    times = ("resample_seconds", "factorization_seconds")
    resamples = [{k: v for k, v in event.items() if k not in times} for event in record["resamples"]]
    return {
        "metrics": record["metrics"],
        "history": record["history"],
        "training": record["training"],
        "resamples": resamples,
        "diagnostics": record["diagnostics"],
        "steps": record["costs"]["steps"],
    }


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        # Of 18 updates, six an epoch.
        ("rosa", [3]),  # mid-epoch, before the first resample
        ("rosa", [6]),  # at an epoch's end, where a resample is due next
        ("rosa", [7]),  # just after a resample
        ("rosa", [12, 13]),  # twice
        ("rosa-steps", [4]),
        ("rosa-steps", [5, 9]),
        ("rosa-random", [7]),  # in the middle of a rewarming
        ("lora", [3, 6]),
        ("ia3", [7]),
        ("full", [6, 13]),
    ],
)
def test_interrupted_run_ends_as_uninterrupted(
    method: str, stops: list[int], composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*METHODS[method], "train.log_steps=2")
    whole = run(dataclasses.replace(config, results_dir=str(tmp_path / "whole")), "command", progress=False).record
    resumed = interrupted_then_resumed(config, stops, monkeypatch)
    assert results(resumed) == results(whole)
    assert len(whole["history"]) == 3
    if method.startswith("rosa"):
        # Each subspace's end is known, that of the one in whose middle the run stopped among them.
        ends = [event["subspace_moved"] for event in resumed["resamples"]]
        ends.append(resumed["diagnostics"]["last_subspace"]["subspace_moved"])
        assert len(ends) == (18 - 1) // (4 if method == "rosa-steps" else 6) + 1
        assert all(norm > 0 for norms in ends for norm in norms)
        assert all(layer["rank"] > 0 for layer in resumed["diagnostics"]["layers"])
    assert not (folder_of(config) / CHECKPOINTS).exists()


def test_a_resumed_runs_record_tells_of_every_session(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped twice before anything was evaluated; the second and the third session are of another checkout."""
    from rosa.records import environment
    from rosa.records import record as module

    times, commits = iter(range(9)), iter("abb")
    found = environment.environment("cpu")
    monkeypatch.setattr(module, "now", lambda: f"2026-01-01T00:00:0{next(times)}+00:00")
    monkeypatch.setattr(environment, "environment", lambda device: found | {"commit": next(commits)})
    config = composed("method=lora")
    resumed = interrupted_then_resumed(config, [3, 4], monkeypatch)
    assert resumed["started"] == "2026-01-01T00:00:00+00:00"
    assert resumed["environment"]["commit"] == "b"
    assert [text for text in resumed["warnings"] if "environment" in text] == [
        "resumed in another environment: commit=a, now b"
    ]
    commits = iter("c")
    forced = dataclasses.replace(config, train=dataclasses.replace(config.train, force=True))
    fresh = run(forced, "command", progress=False).record
    assert (fresh["environment"]["commit"], [text for text in fresh["warnings"] if "environment" in text]) == ("c", [])


class Killed(BaseException):
    """Ends the process without further writes."""


class KillAt(TrainerCallback):
    """Ends the run without a checkpoint after a given number of updates."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def test_a_killed_runs_mirror_has_every_point_once(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed twice, each time between two checkpoints; W&B had written nothing of the first session."""
    from rosa.run import pipeline as module
    from tests.records.test_tracking import history_of, offline_files

    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    config = composed("logger=wandb", "train.log_steps=2", "method.every=1")
    build = module.build_trainer
    for step in (9, 16):  # checkpoints at 6 and 12, the ends of two epochs

        def killed(*args: Any, step: int = step, **kwargs: Any) -> Any:
            trainer = build(*args, **kwargs)
            trainer.add_callback(KillAt(step))
            return trainer

        monkeypatch.setattr(module, "build_trainer", killed)
        with pytest.raises(Killed):
            run(config, "command", progress=False)
        if step == 9:
            for file in offline_files(folder_of(config)):
                file.write_bytes(b"")
    monkeypatch.setattr(module, "build_trainer", build)
    record = run(config, "command", progress=False).record
    (file,) = offline_files(folder_of(config))
    rows = history_of(file)
    assert [row["step"] for row in rows if "learning_rate" in row] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [row["learning_rate"] for row in rows if "learning_rate" in row] == [
        entry["learning_rate"] for entry in record["training"]
    ]
    assert [row["step"] for row in rows if "resample_layers" in row] == [6, 12]
    assert [row["step"] for row in rows if "eval_validation_loss" in row] == [6, 12, 18]


def test_killed_run_goes_on(composed: Composer, tmp_path: Path, tiny_model: Path) -> None:
    """SIGKILL at an arbitrary moment, again and again, until the run is done."""
    overrides = [
        "model=folder", "model.name=tiny", f"model.path={tiny_model}", "data.train_size=96", "data.evaluation_size=32",
        "train.epochs=3", "train.batch_size=16", "train.device=cpu", "train.threads=1", "train.save_steps=2",
        "logger=none", "method.every=1", "method.rank=4",
    ]  # fmt: skip
    config = composed("train.threads=1", "train.save_steps=2", "method.every=1", "method.rank=4")
    whole = run(dataclasses.replace(config, results_dir=str(tmp_path / "whole")), "command", progress=False).record
    command = ("scripts/train.py", *overrides, f"results_dir={config.results_dir}")
    path = folder_of(config) / "record.json"
    kills = 0
    while kills < 2:
        process = begin(*command)
        wanted = 4 * (kills + 1)
        while process.poll() is None:
            checkpoint = find_newest(folder_of(config) / CHECKPOINTS)
            if checkpoint >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        assert process.end().returncode == -signal.SIGKILL, "the run ended before it could be killed"
        kills += 1
    assert begin(*command).end().returncode == 0
    assert results(records.read(path)) == results(whole)


def find_newest(folder: Path) -> int:
    """The newest checkpoint's step, complete or not: the kill may come in the middle of writing it."""
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)
