"""The costs table: means and ratios, recomputed from the records."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np
import pytest
import scipy.stats

from rosa.report.figures.costs import costs as cost_figure
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.grouping import compare
from rosa.report.html.figures import costs_figure
from rosa.report.study import Study
from rosa.report.tables.costs import costs_table
from rosa.report.tables.experiment import costs as costs_of
from rosa.report.tables.markdown import markdown
from tests.conftest import ROOT
from tests.report.synthetic_records import METHODS, config, costs, record
from tests.report.test_tables import LABELS, cells, notes

STEP = "Step (ms)"


def found() -> list[dict[str, Any]]:
    """Records in which full takes twice LoRA's time and ROSA LoRA's, and one task takes longer than the other."""
    factor = {"full": 2.0, "lora": 1.0, "ia3": 0.5, "rosa": 1.0}
    return [
        record(config(task, method, seed=seed), 0.5)
        | {"costs": costs(factor[method.name] * base * (1 + seed / 10), resamples=method.name == "rosa")}
        for task, base in (("cola", 0.01), ("rte", 0.04))
        for method in METHODS
        for seed in (0, 1, 2)
    ]


def test_numbers_are_means_and_ratios_are_geometric_means_over_what_both_have():
    table = cells(markdown(costs_table(compare(found(), "glue"))))
    mean = sum(base * (1 + seed / 10) for base in (0.01, 0.04) for seed in range(3)) / 6
    assert table["LoRA r=8"][STEP] == f"{1000 * mean:.1f}"
    assert table["Full"][STEP] == f"{2000 * mean:.1f} (2.00×)"
    assert table["(IA)3"][STEP] == f"{500 * mean:.1f} (0.500×)"
    assert table[LABELS["rosa"]]["Resample (ms)"] == "250"
    assert table["Full"]["Resample (ms)"] == "—"
    assert table["Full"]["Training state (MiB)"] == "6.00 (1.00×)"
    assert table["Full"]["Peak memory (MiB)"] == "600 (1.00×)"


def test_pefts_measures_are_in_the_csv_and_two_of_them_in_the_table():
    measures = {
        "memory_max_bytes": 30 * 2**20,
        "memory_mean_bytes": 20 * 2**20,
        "memory_p99_bytes": 25 * 2**20,
        "seconds_without_evaluations": 12.5,
        "checkpoint_bytes": 5 * 2**20,
    }
    runs = [one | {"costs": one["costs"] | measures} for one in found()]
    text = markdown(costs_table(compare(runs, "glue")))
    table = cells(text)
    assert table["LoRA r=8"]["Memory above baseline (MiB)"] == "30.0"
    assert table["Full"]["Checkpoint (MiB)"] == "5.00 (1.00×)"
    assert "- Memory above baseline: the most that the device" in notes(text)
    assert "- Checkpoint: the tensors that restore the trained model" in notes(text)
    _, written = costs_of(Study(runs, "glue"))
    lines = list(csv.DictReader(io.StringIO(written)))
    for key, value in measures.items():
        of_measure = [line for line in lines if line["quantity"] == key]
        assert len(of_measure) == 2 * len(METHODS)
        assert {float(line["mean"]) for line in of_measure} == {value}
    plain = cells(markdown(costs_table(compare(found(), "glue"))))
    assert not {"Memory above baseline (MiB)", "Checkpoint (MiB)"} & plain["Full"].keys()


def test_memory_of_a_process_is_that_of_its_first_run():
    """Later ones, and those of records that do not tell, count what earlier ones left."""
    made = found()
    for run in made:
        run["costs"] |= {"memory_max_bytes": 2**25, "first_of_process": run["identity"]["seed"] == 0}
        run["costs"]["host_bytes"] *= 1 + run["identity"]["seed"]
    table = cells(markdown(costs_table(compare(made, "glue"))))
    assert (table["Full"]["Peak memory (MiB)"], table["Full"]["Memory above baseline (MiB)"]) == (
        "600 (1.00×)",
        "32.0 (1.00×)",
    )
    for run in made:
        del run["costs"]["first_of_process"]
    old = cells(markdown(costs_table(compare(made, "glue"))))["Full"]
    assert not {"Peak memory (MiB)", "Memory above baseline (MiB)"} & old.keys()
    for run in made:
        run["costs"]["device_bytes"] = 2**20
    of_device = cells(markdown(costs_table(compare(made, "glue"))))["Full"]
    assert of_device["Memory above baseline (MiB)"] == "32.0 (1.00×)"


def test_the_csv_has_every_task_as_recorded():
    _, text = costs_of(Study(found(), "glue"))
    lines = [x for x in csv.DictReader(io.StringIO(text)) if x["quantity"] == "seconds_per_step"]
    assert len(lines) == 2 * len(METHODS)
    for line in lines:
        own = [
            one["costs"]["seconds_per_step_median"]
            for one in found()
            if (one["identity"]["task"], LABELS[one["identity"]["method"]]) == (line["task"], line["row"])
        ]
        assert [float(value) for value in line["values"].split()] == own
    ratio = {(x["task"], x["row"]): x["ratio_to_lora"] for x in lines}
    assert float(ratio["rte", "Full"]) == pytest.approx(scipy.stats.gmean([2.0, 2.0, 2.0]))
    assert ratio["rte", "LoRA r=8"] == ""


def test_a_gpu_s_peak_is_its_own_and_two_machines_are_loud():
    made = found()
    assert "Peak memory: the process's" in notes(markdown(costs_table(compare(made, "glue"))))
    for one in made:
        one["costs"]["device_bytes"] = 2**30
        one["environment"] |= {"device": "H200", "cpu": "X", "threads": 1}
    text = markdown(costs_table(compare(made, "glue")))
    assert "Peak memory: the GPU's." in text
    assert cells(text)["Full"]["Peak memory (MiB)"] == "1,024 (1.00×)"
    assert "Machine: H200 (X, 1 thread)." in text
    made[0]["environment"]["device"] = "cpu"
    assert "**Runs of several machines:**" in markdown(costs_table(compare(made, "glue")))


def test_the_wait_for_batches_is_a_share_of_the_updates_where_runs_have_measured_it():
    made = found()
    name = "Loading (% of steps)"
    assert name not in markdown(costs_table(compare(made, "glue")))
    for one in made:
        share = 0.02 if one["identity"]["method"] == "full" else 0.01
        one["costs"] |= {"seconds_in_steps": 50.0, "seconds_in_loading": 50.0 * share}
    made[0]["costs"]["seconds_in_steps"] = 0.0  # a run without an update
    table = cells(markdown(costs_table(compare(made, "glue"))))
    assert (table["Full"][name], table["LoRA r=8"][name]) == ("2.00 (2.00×)", "1.00")


def test_records_without_measurements_have_no_table():
    bare = [record(config("rte", method), 0.5) for method in METHODS]
    assert costs_table(compare(bare, "glue")) is None


def test_tasks_of_other_batch_sizes_are_not_averaged() -> None:
    made = found()
    for run in made:
        if run["identity"]["task"] == "cola":
            run["config"]["train"]["batch_size"] = 8
    text = markdown(costs_table(compare(made, "glue")))
    table, whole = cells(text), cells(markdown(costs_table(compare(found(), "glue"))))
    assert set(table) == {f"{label}, {task}" for label in whole for task in ("CoLA", "RTE")}
    for label, line in whole.items():
        steps = [float(table[f"{label}, {task}"]["Step (ms)"].split()[0].replace(",", "")) for task in ("CoLA", "RTE")]
        assert np.mean(steps) == pytest.approx(float(line["Step (ms)"].split()[0].replace(",", "")), rel=0.01)
        assert steps[0] != steps[1]
    assert "Tasks stand apart, since their batch sizes differ." in notes(text)


def moved(run: dict[str, Any], factor: float) -> None:
    """The run as a machine measures it that takes so many times as long."""
    run["environment"] |= {"device": "other"}
    for name in ("seconds_per_step_median", "seconds_per_resample_median"):
        if run["costs"].get(name) is not None:
            run["costs"][name] *= factor
    run["costs"]["host_bytes"] *= factor


def test_values_of_two_machines_have_neither_a_mean_nor_a_ratio() -> None:
    made = found()
    for run in made:  # seed 0 of all rows elsewhere, and all of (IA)3
        if run["identity"]["seed"] == 0 or run["identity"]["method"] == "ia3":
            moved(run, 100)
    text = markdown(costs_table(compare(made, "glue")))
    table = cells(text)
    assert table["Full"][STEP] == "— (2.00×)"
    assert table["LoRA r=8"][STEP] == "—"
    mean = sum(base * (1 + seed / 10) for base in (0.01, 0.04) for seed in range(3)) / 6
    assert table["(IA)3"][STEP] == f"{50000 * mean:,.0f} (0.500×)"  # of seed 0, which LoRA has there too
    assert table["Full"]["Training state (MiB)"] == "6.00 (1.00×)"
    assert table["Full"]["Peak memory (MiB)"] == "— (1.00×)"
    _, lines = costs_of(Study(made, "glue"))
    by_row = {
        (x["task"], x["row"]): x for x in csv.DictReader(io.StringIO(lines)) if x["quantity"] == "seconds_per_step"
    }
    assert by_row["rte", "Full"]["mean"] == ""
    assert float(by_row["rte", "(IA)3"]["ratio_to_lora"]) == pytest.approx(0.5)


@pytest.mark.parametrize("draw", [cost_figure, tradeoffs])
def test_no_figure_sets_two_machines_side_by_side(draw: Any) -> None:
    made = found()
    for run in made:
        if run["identity"]["method"] == "ia3":
            moved(run, 100)
    (picture,), left_out = draw(compare(made, "glue"))
    assert f"measured on several machines: {STEP}" in left_out
    assert not any("Step" in str(value) for line in picture.rows for value in line.values())
    assert any("Training state" in str(value) for line in picture.rows for value in line.values())


def test_the_report_sets_no_two_machines_side_by_side() -> None:
    made = [run for run in found() if run["identity"]["task"] == "rte"]
    whole = costs_figure(compare(made, "glue"))
    for run in made:
        if run["identity"]["method"] == "ia3":
            moved(run, 100)
    without = costs_figure(compare(made, "glue"))
    assert len(whole.panels) == len(without.panels) + 1


def test_what_is_forgotten_has_a_mean_and_no_ratio() -> None:
    made = found()
    assert "Forgotten (nats)" not in markdown(costs_table(compare(made, "glue")))
    for run in made:
        change = {"full": 0.5, "rosa": -0.02}.get(run["identity"]["method"], 0.1)
        after = 4.7 + change + run["identity"]["seed"] / 10
        run["diagnostics"]["forgetting"] = {"loss": "next token", "before": 4.7, "after": after}
    text = markdown(costs_table(compare(made, "glue")))
    table = cells(text)
    assert table["Full"]["Forgotten (nats)"] == "0.600"
    assert table[LABELS["rosa"]]["Forgotten (nats)"] == "0.0800"
    assert "Forgotten: the loss on a fixed text" in notes(text)
    _, lines = costs_of(Study(made, "glue"))
    kept = [x for x in csv.DictReader(io.StringIO(lines)) if x["quantity"] == "forgotten"]
    assert len(kept) == 2 * len(METHODS)
    assert {x["ratio_to_lora"] for x in kept} == {""}
    (picture,), _ = cost_figure(compare(made, "glue"))
    assert {line["quantity"] for line in picture.rows} >= {"Forgotten (nats)"}


def test_a_table_says_for_how_many_runs_it_is_not_known_what_was_forgotten_and_why() -> None:
    made = found()
    headless, unasked = "the checkpoint has no masked-token head", "train.forgetting=false"
    for run in made:
        of = {"full": {"forgetting": {"loss": "masked token", "before": 4.7, "after": 4.9}}, "lora": {}}
        run["diagnostics"] = of.get(run["identity"]["method"], {"forgetting_missing": headless})
        if run["identity"]["method"] == "lora":  # of an earlier version, which said nothing
            run["config"]["train"]["forgetting"] = False
    text = markdown(costs_table(compare(made, "glue")))
    assert cells(text)["LoRA r=8"]["Forgotten (nats)"] == "—"
    assert f"Not known: {headless} (12 runs); {unasked} (6 runs)." in notes(text)
    for run in made:
        run["diagnostics"].pop("forgetting", None)
        del run["config"]["train"]["forgetting"]
    made[0]["diagnostics"] = {"forgetting_missing": "it failed: OutOfMemoryError"}
    made[0]["config"]["task"]["kind"] = "classification"
    text = markdown(costs_table(compare(made, "glue")))
    assert "Forgotten (nats)" not in text
    body = notes(text)
    assert f"What was forgotten is not known: {headless} (" in body
    assert "recorded before it was measured (" in body
    assert "it failed: OutOfMemoryError (1 run)." in body


def test_no_text_calls_a_checkpoints_tensors_what_a_resume_needs() -> None:
    """A resume reads the optimizer's state too, which ``checkpoint_bytes`` leaves out."""
    files = [path for place in ("rosa/report", "scripts/benchmarks") for path in (ROOT / place).rglob("*.py")]
    files += [path for path in (ROOT / "results/tables").iterdir() if path.suffix in (".md", ".tex")]
    files += [ROOT / "docs/claims.md", *(ROOT / "results/figures").rglob("*.svg")]
    said = re.compile(r"a\s+resume\s+needs|needs\s+for\s+resuming|To\s+resume,")
    assert [str(path) for path in files if said.search(path.read_text())] == []
