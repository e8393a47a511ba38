"""Baselines in tables: rows below the methods, the best form named, a mark on each score that is not above them."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from rosa.config import FullConfig, LoraConfig, RosaConfig
from rosa.records import baselines
from rosa.report.grouping import compare
from rosa.report.html.contents import contents
from rosa.report.html.render import html
from rosa.report.study import Study
from rosa.report.tables.experiment import tables
from rosa.report.tables.generation import generation_table
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.results import results_table
from rosa.report.tables.scores_csv import long_csv
from tests.report.synthetic_records import config, record, written
from tests.report.test_html import located
from tests.report.test_tables import cells, notes

NOT_ABOVE = "Not above the best baseline for the same rows."


def known(runs: list[dict[str, Any]], **forms: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """Records of baselines with these scores for the rows of these runs."""
    found = {}
    for run in runs:
        key = baselines.key_of_run(run)
        assert key is not None
        made = [{"name": name.replace("_", " "), "seconds": 0.1, "scores": scores} for name, scores in forms.items()]
        found[baselines.hash_of(key)] = {"schema": 1, "data": key, "forms": made}
    return found


def validation(accuracy: float | None) -> dict[str, dict[str, float | None]]:
    return {"validation": {"accuracy": accuracy}}


def letter(table: str) -> str:
    """The letter of the footnote on scores that are not above the baselines."""
    (line,) = [line for line in notes(table).splitlines() if NOT_ABOVE in line]
    return line.removeprefix("- (").partition(")")[0]


def test_rows_below_the_methods_name_the_best_form_and_lower_scores_are_marked() -> None:
    runs = [
        record(config("rte", method, seed=seed), best=score + seed / 100)
        for method, score in ((FullConfig(), 0.70), (LoraConfig(), 0.59), (RosaConfig(), 0.595))
        for seed in (0, 1)
    ]
    found = known(
        runs, constant=validation(0.5), both_texts=validation(0.55), differences=validation(0.6),
        second_text=validation(0.58),
    )  # fmt: skip
    table = markdown(results_table(compare(runs, "glue", baselines=found)))
    rows = cells(table)
    assert list(rows) == ["Full", "LoRA r=8", "ROSA r=8, every 2 epochs", "Constant answer", "Bag of words"]
    mark = letter(table)
    marked = {label: f"<sup>{mark}</sup>" in row["RTE"] for label, row in rows.items()}
    # Means 0.705, 0.595 and 0.6: equal is not above.
    assert marked == {
        "Full": False,
        "LoRA r=8": True,
        "ROSA r=8, every 2 epochs": True,
        "Constant answer": False,
        "Bag of words": False,
    }
    assert rows["Constant answer"]["RTE"] == "50.0", "both seeds have the same rows: one number, no spread"
    assert rows["Bag of words"]["RTE"].startswith("60.0<sup>")
    assert "On differences." in notes(table)
    assert "python scripts/make_baselines.py --experiment glue" in table
    assert "Bag of words" in latex(results_table(compare(runs, "glue", baselines=found)))
    page = html(contents(located(runs), baselines=found))
    assert "Bag of words" in page
    assert NOT_ABOVE in page


def test_rows_of_their_own_for_each_seed_have_a_spread() -> None:
    runs = []
    for seed in (0, 1):
        run = record(config("rte", seed=seed), best=0.7)
        run["data"]["limit"] = {"rows": 50, "of": 100, "seed": seed}
        runs.append(run)
    found = known(runs[:1], constant=validation(0.5)) | known(runs[1:], constant=validation(0.6))
    table = markdown(results_table(compare(runs, "glue", baselines=found)))
    assert cells(table)["Constant answer"]["RTE"] == "55.0 ± 7.1"
    # A mean over one seed's rows would stand beside means over both.
    lacking = markdown(results_table(compare(runs, "glue", baselines=known(runs[:1], constant=validation(0.5)))))
    assert "Constant answer" not in cells(lacking)
    assert "Baselines, which tell what a score is worth: not computed" in lacking


def test_an_undefined_score_is_a_dash_and_marks_nothing() -> None:
    runs = [record(config("stsb"), best=-0.1)]
    scores = {"validation": {"pearson": None, "spearmanr": None}}
    table = markdown(results_table(compare(runs, "glue", baselines=known(runs, constant=scores))))
    assert cells(table)["Constant answer"]["STS-B"] == "—"
    assert NOT_ABOVE not in table


def test_other_data_have_other_baselines() -> None:
    runs = [record(config("rte"), best=0.4)]
    other = record(config("rte"))
    other["data"]["splits"]["train"]["sha256"] = "other"
    table = markdown(results_table(compare(runs, "glue", baselines=known([other], constant=validation(0.9)))))
    assert "Constant answer" not in cells(table)
    assert NOT_ABOVE not in table


def test_both_splits_and_the_average_are_shown() -> None:
    runs = [record(config(task, seed=0), best=0.9) for task in ("mnli", "rte")]
    mnli = {"validation_matched": {"accuracy": 0.4}, "validation_mismatched": {"accuracy": 0.3}}
    found = known(runs[:1], constant=mnli) | known(runs[1:], constant=validation(0.6))
    row = cells(markdown(results_table(compare(runs, "glue", baselines=found))))["Constant answer"]
    assert (row["MNLI"], row["RTE"], row["Average"]) == ("40.0/30.0", "60.0", "50.0")


def test_texts_have_a_row_of_retrieval_and_each_score_its_own_mark() -> None:
    runs = [written(record(config("e2e", seed=0)), 3.0, {"bleu": 0.40, "nist": 9.0})]
    retrieved = {"test": {"bleu": 0.45, "nist": 6.0, "meteor": None, "rouge_l": 0.5, "cider": 1.0}}
    comparison = compare(runs, "glue", baselines=known(runs, retrieval=retrieved))
    table = markdown(generation_table(comparison, comparison.tasks[0]))
    rows = cells(table)
    assert list(rows["Retrieval"].values())[1:] == ["45.0", "6.00", "—", "50.0", "1.00", "—", "—"]
    (method,) = (row for label, row in rows.items() if label != "Retrieval")
    marked = [name for name, cell in method.items() if f"<sup>{letter(table)}</sup>" in cell]
    assert marked == ["BLEU ×100"]


def test_the_tables_of_an_experiment_and_its_csv_have_every_form() -> None:
    runs = [record(config("rte"), best=0.7)]
    found = known(runs, constant=validation(0.5), both_texts=validation(0.55), differences=validation(0.6))
    assert "Bag of words" in markdown(tables(Study(runs, "glue", baselines=found))[0])
    lines = list(csv.DictReader(io.StringIO(long_csv(Study(runs, "glue", baselines=found)))))
    shown = {(line["row"], line["mean"]) for line in lines if line["method"] == "baseline" and line["rule"] == "best"}
    assert shown == {
        ("Constant answer, constant", "0.5"),
        ("Bag of words, both texts", "0.55"),
        ("Bag of words, differences", "0.6"),
    }


@pytest.mark.parametrize("baselines_at_hand", [None, {}])
def test_without_records_the_table_says_how_to_make_them(baselines_at_hand) -> None:
    table = markdown(results_table(compare([record(config("rte"))], "glue", baselines=baselines_at_hand)))
    assert "not computed; `python scripts/make_baselines.py --experiment glue` does." in table
