"""Training around a resample: made-up runs whose numbers are known by hand."""

from __future__ import annotations

from typing import Any

import scipy.stats

from rosa.config import LoraConfig, MethodConfig, RosaConfig
from rosa.report.claims.methods import EXPERIMENT
from rosa.report.claims.resamples import resamples
from rosa.report.grouping import compare
from rosa.report.tables.table import Table
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
    """The last three cells of each line of the table, and the sentence below it."""
    table, *sentences = resamples(compare(found, EXPERIMENT))
    assert isinstance(table, Table)
    return [[cell.text for cell in line[3:]] for line in table.rows], list(map(str, sentences))


def test_the_loss_around_a_resample_and_without_it_at_the_same_steps() -> None:
    found = cells([run(LoraConfig()), run(RosaConfig(every=0)), run(RosaConfig(every=1), jump=0.5)])
    assert found == (
        [["—", "-0.020", "—"], ["—", "-0.020", "—"], ["2.00 to 0.250", "+0.480", "+0.500 (n=1)"]],
        ["Of 1 pairs of runs with the same seed, the loss falls less at a resample than without in 1."],
    )


def test_the_losses_are_paired_by_seed_over_the_seeds_that_all_rows_have() -> None:
    """ROSA has a further seed, whose jump would be far larger."""
    found = [run(RosaConfig(every=0), seed=seed) for seed in (1, 2, 3)]
    jumps = {1: 0.1, 2: 0.3, 3: -0.1, 4: 9.0}
    found += [run(RosaConfig(every=1), jump, seed) for seed, jump in jumps.items()]
    (_, (_, loss, less)), sentences = cells(found)
    low, high = scipy.stats.ttest_1samp([0.1, 0.3, -0.1], 0).confidence_interval()
    assert (loss, less) == ("+0.080", f"+0.100 ± {(high - low) / 2:.3f} (n=3)")
    assert sentences == ["Of 3 pairs of runs with the same seed, the loss falls less at a resample than without in 2."]


def test_a_resample_that_helps() -> None:
    _, sentence = cells([run(RosaConfig(every=0)), run(RosaConfig(every=1), jump=-0.5)])
    assert sentence == ["Of 1 pairs of runs with the same seed, the loss falls less at a resample than without in 0."]


def test_the_steps_are_those_of_the_same_seed() -> None:
    found = cells([run(RosaConfig(every=0), jump=0.3, seed=2), run(RosaConfig(every=1))])
    assert found == ([["—", "—", "—"], ["2.00 to 0.250", "-0.020", "—"]], [])


def test_a_loss_that_is_no_number_is_left_out() -> None:
    broken = run(RosaConfig(every=1))
    broken["training"][1]["loss"] = float("nan")
    assert cells([broken])[0] == [["2.00 to 0.250", "—", "—"]]


def test_runs_that_logged_nothing_leave_dashes() -> None:
    assert cells([record(config("cola", LoraConfig(), experiment=EXPERIMENT), 0.5, diagnostics={})])[0] == [
        ["—", "—", "—"]
    ]
