"""Selection of the epoch and the learning rate: dev-best, dev-last or holdout."""

from __future__ import annotations

from typing import Any

import pytest

from rosa import records
from rosa.config import Config
from rosa.errors import ConfigError, RecordError
from rosa.run import reload, run
from rosa.run.folder import WEIGHTS
from tests.conftest import Composer

RATES = (1e-4, 3e-3, 3e-2)


def done(config: Config) -> dict[str, Any]:
    return run(config, "command", progress=False).record


@pytest.mark.slow
def test_holdout_chooses_the_epoch_and_dev_is_only_scored(composed: Composer) -> None:
    record = done(composed("selection=holdout", "data.holdout=0.25", "train.lr=3e-3", "train.epochs=4"))

    rows = {split: facts["rows"] for split, facts in record["data"]["splits"].items()}
    assert rows["train"] + rows["holdout"] == 96
    assert rows["holdout"] == pytest.approx(24, abs=6)  # a share of the different texts
    metric = record["config"]["task"]["headline"]
    assert record["metrics"]["selection"]["split"] == "holdout"
    assert record["metrics"]["selection"]["rule"] == f"highest {metric} on holdout, first of equals"
    held = [epoch["holdout"][metric] for epoch in record["history"]]
    assert record["metrics"]["best"] == record["history"][held.index(max(held))]
    assert set(record["metrics"]["best"]) >= {"holdout", "validation"}
    assert records.score(record) == max(held)


@pytest.mark.slow
def test_a_run_without_a_holdout_is_what_it_was(composed: Composer) -> None:
    """Neither the run's hash nor its data depends on the option."""
    plain, named = composed(), composed("selection=dev-best")
    assert records.folder(plain) == records.folder(named)
    assert records.folder(plain) != records.folder(composed("selection=holdout"))
    old = done(plain)
    del old["config"]["selection"]
    assert records.settings(old)["selection"] == "dev-best"
    assert list(old["data"]["splits"]) == ["train", "validation"]


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["dev-best", "dev-last", "holdout"])
def test_a_learning_rate_is_chosen_by_the_same_selection(composed: Composer, selection: str) -> None:
    grid = {
        lr: done(composed("experiment_name=tune", f"selection={selection}", f"train.lr={lr}", "task=stsb"))
        for lr in RATES
    }
    metric = grid[RATES[0]]["config"]["task"]["headline"]
    scores = {
        "dev-best": {lr: max(epoch["validation"][metric] for epoch in r["history"]) for lr, r in grid.items()},
        "dev-last": {lr: r["history"][-1]["validation"][metric] for lr, r in grid.items()},
        "holdout": {
            lr: max(epoch.get("holdout", {metric: 0})[metric] for epoch in r["history"]) for lr, r in grid.items()
        },
    }[selection]
    tuned = done(
        composed(
            "task=stsb",
            "train.lr=tuned",
            "train.tuning.experiment=tune",
            "train.tuning.task=stsb",
            f"selection={selection}",
            "train.epochs=1",
        )
    )
    assert {entry["lr"]: entry["score"] for entry in tuned["tuning"]["grid"]} == scores
    assert tuned["config"]["train"]["lr"] == max(RATES, key=lambda lr: scores[lr])
    assert tuned["tuning"]["split"] == ("holdout" if selection == "holdout" else "validation")


@pytest.mark.slow
def test_each_task_is_tuned_on_itself_where_asked(composed: Composer) -> None:
    rates = {"cola": 1e-3, "stsb": 2e-3}
    for task, lr in rates.items():
        done(composed("experiment_name=tune", f"task={task}", f"train.lr={lr}", "train.epochs=1"))
    own = ("train.lr=tuned", "train.tuning.experiment=tune", "train.tuning.task=same", "train.epochs=1", "seed=1")
    for task, lr in rates.items():
        record = done(composed(f"task={task}", *own))
        assert (record["config"]["train"]["lr"], record["tuning"]["task"]) == (lr, task)
    with pytest.raises(RecordError, match=r"no runs to choose from \(experiment tune, task rte, seed 0,"):
        run(composed("task=rte", *own), "again")


@pytest.mark.slow
def test_a_grid_of_another_selection_does_not_choose(composed: Composer) -> None:
    """With selection=holdout, dev scores must not choose the learning rate either."""
    done(composed("experiment_name=tune", "train.lr=1e-3"))
    with pytest.raises(records.RecordError, match="experiment=tune task=cola selection=holdout"):
        done(composed("train.lr=tuned", "train.tuning.experiment=tune", "selection=holdout"))


@pytest.mark.slow
def test_weights_are_kept_of_the_epoch_that_was_chosen(composed: Composer) -> None:
    outcome = run(composed("selection=dev-last", "train.keep=last"), "command", progress=False)
    assert outcome.record["metrics"]["selection"]["rule"] == "last epoch"
    assert (outcome.folder / WEIGHTS["last"]).is_file()
    assert not (outcome.folder / WEIGHTS["best"]).exists()
    assert reload.load(outcome.folder).weights == "last"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("selection=test",), "selection='test': expected one of dev-best, dev-last, holdout"),
        (("data.holdout=0.2",), r"data\.holdout=0\.2 with selection=dev-best"),
        (("selection=holdout", "data.holdout=1"), r"data\.holdout=1\.0: expected a share in \(0, 1\)"),
        (
            ("selection=holdout", "task=regression", "data=teacher", "model=linear"),
            "selection=holdout with task=regression",
        ),
        (("selection=holdout", "task.evaluation=[holdout]"), "is reserved for selection=holdout"),
    ],
)
def test_what_cannot_be_selected_by_is_refused(overrides: tuple[str, ...], message: str, composed: Composer) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)
