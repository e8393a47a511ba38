"""The documented sweeps in a fresh clone: other data folder, other precision, beside the committed records."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest

from rosa import records
from rosa.config import TUNED, Config, register
from rosa.records.selection import Grids
from rosa.sweep.grid import expand
from rosa.sweep.jobs import request
from tests.conftest import ROOT


@functools.cache
def sweep(name: str, *overrides: str) -> list[Config]:
    """Every run of an experiment's file."""
    register()
    asked = request([f"experiment={name}", "data.dir=/elsewhere/", *overrides])
    return [job.config for job, _ in expand(ROOT / "conf", asked)]


def with_precision(config: Config, precision: str, **changes: object) -> Config:
    train = dataclasses.replace(config.train, precision=precision, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, train=train)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["e2e_mini", "e2e_real", "evidence_glue"])
def test_learning_rates_are_those_of_the_committed_runs(name: str, precision: str) -> None:
    """A folder without a grid of its own uses the committed one, whatever its data folder and precision."""
    committed = {
        (run["identity"]["task"], run["identity"]["method"], str(run["config"]["method"])): records.learning_rate(run)
        for run in records.find(ROOT / "results", name, "alone")[0]
    }
    grids, seen = Grids(ROOT / "results"), set()
    for config in sweep(name):
        key = (config.task.name, config.method.name, str(dataclasses.asdict(config.method)))
        if config.train.lr == TUNED and key in committed:
            lr, tuning = grids.tuned_lr(with_precision(config, precision))
            assert (lr, tuning["committed"]) == (committed[key], True)
            seen.add(key)
    assert seen


@pytest.mark.parametrize("name", ["e2e_mini", "e2e_real"])
def test_an_own_grid_in_another_precision_is_taken_before_the_committed_one(name: str, tmp_path: Path) -> None:
    """As on a GPU: `make reproduce-e2e` tunes in bf16, and finds its own runs beside the committed fp32 ones."""
    (tmp_path / "records").symlink_to(ROOT / "results" / "records")
    best = {}
    for config in (with_precision(config, "bf16") for config in sweep(f"{name}_tune")):
        made = records.new(config, "command")
        metric, value = config.task.headline, 1 + config.train.lr  # the smallest wins, as of perplexities
        scores = {"epoch": 1.0, "step": 1, "validation": {metric: value}}
        made["metrics"] = {  # type: ignore[typeddict-item]
            "best": scores, "last": scores, "selection": {"split": "validation", "metric": metric, "rule": "lowest"},
        }  # fmt: skip
        made["status"] = "done"
        records.write(records.run_folder(tmp_path, made["identity"]), made)
        key = (config.method.name, str(config.method))
        best[key] = min(config.train.lr, best.get(key, 1.0))
    grids = Grids(tmp_path)
    for config in (with_precision(config, "bf16") for config in sweep(name)):
        lr, tuning = grids.tuned_lr(config)
        assert (lr, tuning["committed"]) == (best[config.method.name, str(config.method)], False)


@pytest.mark.parametrize("name", ["evidence_glue_tune", "evidence_glue", "e2e_real", "e2e_real_tune"])
def test_a_run_of_a_fresh_clone_has_the_name_of_the_committed_one(name: str) -> None:
    """A committed record and an own one, with another data folder, are of the same run."""
    committed = {records.order_key(run)[:-1] for run in records.find(ROOT / "results", name, "alone")[0]}
    grids = Grids(ROOT / "results")
    names = set()
    for config in sweep(name, "train.precision=fp32"):
        lr = grids.tuned_lr(config)[0] if config.train.lr == TUNED else config.train.lr
        run = records.identity(with_precision(config, "fp32", lr=lr))
        names.add(tuple(run.values())[:-1])
    assert names
    missing = {(task, method) for _, _, task, method, _ in names - committed}
    assert missing <= {(task, "robust") for task in ("mrpc", "stsb", "rte")}, "RoSA was tuned there, and not run"
