"""The documented sweeps in a fresh clone: other data folder, other precision, beside the committed records."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from pathlib import Path

import pytest

from rosa import records
from rosa.config import TUNED, Config, register
from rosa.errors import RecordError
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


def finish(config: Config, score: float, results: Path) -> None:
    """Write the record of a finished run."""
    made, metric = records.new(config, "command"), config.task.headline
    scores = {"epoch": 1.0, "step": 1, "validation": {metric: score}}
    made["metrics"] = {  # type: ignore[typeddict-item]
        "best": scores, "last": scores, "selection": {"split": "validation", "metric": metric, "rule": "lowest"},
    }  # fmt: skip
    made["status"] = "done"
    records.write(records.run_folder(results, made["identity"]), made)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["e2e_mini", "e2e_real", "evidence_glue"])
def test_learning_rates_are_those_of_the_committed_runs(name: str, precision: str) -> None:
    """A folder without a grid of its own uses the committed one, whatever its data folder and precision."""
    committed = {
        (run["identity"]["task"], run["identity"]["method"], str(run["config"]["method"])): records.learning_rate(run)
        for run in records.find(ROOT / "results", name, "alone")[0]
        if run["tuning"]  # not those whose rate was asked for by hand
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
        finish(config, 1 + config.train.lr, tmp_path)  # the smallest wins, as of perplexities
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
    for config in (with_precision(config, "fp32") for config in sweep(name)):
        lr = grids.tuned_lr(config)[0] if config.train.lr == TUNED else config.train.lr
        run = records.identity(with_precision(config, "fp32", lr=lr))
        names.add(tuple(run.values())[:-1])
    assert names
    missing = {(task, method) for _, _, task, method, _ in names - committed}
    not_run = {(task, "robust") for task in ("stsb", "rte")}  # RoSA was tuned there only
    one_epoch = {("e2e", "robust")} if name == "e2e_real_tune" else set()  # its rates are of train.epochs=1
    assert missing <= not_run | one_epoch


@pytest.mark.parametrize(
    "words",
    [
        "experiment=evidence_glue task=sst2 method=lora seed=1 data.dir=/elsewhere data.limit=5000",
        "experiment=evidence_glue task=qnli method=rosa_never seed=2 data.dir=/elsewhere train.epochs=3",
        "experiment=e2e_mini method=lora method.rank=3 seed=1",
        "experiment=glue_mini task=rte method=full seed=0 model=minilm",
        "experiment=glue_mini task=rte method=lora seed=0 train.tuning.task=same selection=holdout train.force=true",
    ],
)
def test_the_command_that_is_named_makes_the_grid_that_is_missing(words: str, tmp_path: Path) -> None:
    """Of another task, model or method than the tuning experiment's file has, too."""
    register()
    asked = request([*words.split(), f"results_dir={tmp_path}"])
    ((job, _),) = expand(ROOT / "conf", asked)
    with pytest.raises(RecordError, match="no runs to choose from") as caught:
        Grids(tmp_path).tuned_lr(job.config, job.command)
    named = shlex.split(str(caught.value).rpartition("make them with: ")[2])
    assert named[:3] == ["python", "scripts/train.py", "-m"]
    grid = [made.config for made, _ in expand(ROOT / "conf", request(named[2:]))]
    for config in grid:
        finish(config, 0.5, tmp_path)
        assert (config.data, config.model, config.method) == (job.config.data, job.config.model, job.config.method)
        assert config.train.epochs == job.config.train.epochs
    _, tuning = Grids(tmp_path).tuned_lr(job.config)
    assert [cell["lr"] for cell in tuning["grid"]] == sorted({config.train.lr for config in grid})
    assert len(grid) > 1
