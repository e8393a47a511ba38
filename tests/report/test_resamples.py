"""Training around a resample: made-up runs whose numbers are known by hand."""

from __future__ import annotations

from typing import Any

from rosa.config import LoraConfig, MethodConfig, RosaConfig
from rosa.report.claims.methods import EXPERIMENT
from rosa.report.claims.resamples import resamples_table, set_back
from rosa.report.comparison import compare
from tests.report.synthetic_records import config, record

# A step's loss falls by 0.001, and is logged every ten steps as the mean of the ten. The resample after step 25 changes
# it for the rest, so that 20 and 40 are the steps of the nearest whole intervals before and after it.
EVERY, STEPS, AT = 10, 60, 25


def logged(jump: float) -> list[dict[str, float]]:
    losses = [1 - 0.001 * step + (jump if step > AT else 0) for step in range(1, STEPS + 1)]
    return [{"step": step, "loss": sum(losses[step - EVERY : step]) / EVERY} for step in range(EVERY, STEPS + 1, EVERY)]


def run(method: MethodConfig, jump: float = 0.0, seed: int = 1) -> dict[str, Any]:
    made = record(config("cola", method, seed=seed, experiment=EXPERIMENT), 0.5, training=logged(jump), diagnostics={})
    if isinstance(method, RosaConfig) and method.every:
        made["resamples"] = [{"step": AT, "subspace_moved": [3.0, 1.0]}]
        made["diagnostics"] = {"last_subspace": {"subspace_moved": [0.5, 0.0]}}
    return made


def cells(found: list[dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """The last two cells of each line of the table, and the sentence below it."""
    comparison = compare(found, EXPERIMENT)
    return [[cell.text for cell in line[3:]] for line in resamples_table(comparison).rows], set_back(comparison)


def test_the_loss_around_a_resample_and_without_it_at_the_same_steps() -> None:
    found = cells([run(LoraConfig()), run(RosaConfig(every=0)), run(RosaConfig(every=1), jump=0.5)])
    assert found == (
        [["—", "-0.020"], ["—", "-0.020"], ["2.00 to 0.250", "+0.480"]],
        ["At a resample the loss falls less than without it on 1 of 1 tasks."],
    )


def test_a_resample_that_helps() -> None:
    _, sentence = cells([run(RosaConfig(every=0)), run(RosaConfig(every=1), jump=-0.5)])
    assert sentence == ["At a resample the loss falls less than without it on 0 of 1 tasks."]


def test_the_steps_are_those_of_the_same_seed() -> None:
    found = cells([run(RosaConfig(every=0), jump=0.3, seed=2), run(RosaConfig(every=1))])
    assert found == ([["—", "—"], ["2.00 to 0.250", "-0.020"]], [])


def test_a_loss_that_is_no_number_is_left_out() -> None:
    broken = run(RosaConfig(every=1))
    broken["training"][1]["loss"] = float("nan")
    assert cells([broken])[0] == [["2.00 to 0.250", "—"]]


def test_runs_that_logged_nothing_leave_dashes() -> None:
    assert cells([record(config("cola", LoraConfig(), experiment=EXPERIMENT), 0.5, diagnostics={})])[0] == [["—", "—"]]
