"""Tables, recomputed by brute force from the records."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import make_baselines
import numpy as np
import pytest
import scipy.stats

from rosa import records
from rosa.config import DataConfig, FullConfig, IA3Config, LoraConfig, ModelConfig, RobustConfig, RosaConfig
from rosa.config.data import SOURCES
from rosa.errors import ReportError
from rosa.report import cli, formatting
from rosa.report.comparison import Words
from rosa.report.figures.curves import curves
from rosa.report.figures.forest import forest
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.grouping import compare, own_rule
from rosa.report.html.figures import costs_figure
from rosa.report.published import Published, read_published
from rosa.report.study import Study
from rosa.report.tables.differences import differences
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.latex import escape, latex
from rosa.report.tables.learning_rates import grid_table
from rosa.report.tables.markdown import markdown, markdown_text
from rosa.report.tables.results import results_table
from rosa.report.tables.scores_csv import long_csv
from rosa.report.tables.table import Cell, Span, Table
from tests.commands import Ended, answer
from tests.report.synthetic_records import METHODS, config, costs, record

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"full": "Full", "lora": "LoRA r=8", "ia3": "(IA)3", "rosa": "ROSA r=8, every 2 epochs"}
GLUE = ["mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb", "wnli"]


def cells(table: str) -> dict[str, dict[str, str]]:
    """A Markdown table as row label -> column -> cell."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    header, _, *body = rows
    assert all(len(row) == len(header) for row in body)
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def notes(table: str) -> str:
    return "\n".join(line for line in table.splitlines() if line.startswith("- "))


def made(found: list[dict[str, Any]], rule: str = "best", experiment: str = "glue") -> str:
    return markdown(results_table(compare(found, experiment, rule)))


def test_patterns_in_another_order_are_another_row_and_two_scores_of_a_seed_are_refused() -> None:
    """Of several patterns the last that matches wins."""
    shown = {'{"*layer.0*": 2, "*layer*": 4}': 0.1, '{"*layer*": 4, "*layer.0*": 2}': 0.9}
    found = [record(config(method=RosaConfig(rank_pattern=json.loads(text))), best) for text, best in shown.items()]
    rows = compare(found, "glue").rows
    scores = {row.label: row.results["cola"].selected.scores("validation", "matthews_correlation")[0] for row in rows}
    assert scores == {f"ROSA r=8, every 2 epochs, rank_pattern={text}": best for text, best in shown.items()}
    again = json.loads(json.dumps(found[0]))
    again["identity"]["hash"] = "another"  # of a version with another default
    with pytest.raises(ReportError, match=r"rosa-\w+/seed0 and run .*/rosa-\w+/seed0 have the same settings and seed"):
        compare([*found, again], "glue")
    compare([*found, again | {"status": "failed", "metrics": {}}], "glue")


def every_task(seeds: int = 3) -> list[dict[str, Any]]:
    pairs = itertools.product(GLUE, METHODS, range(seeds))
    return [record(config(task, method, seed=seed)) for task, method, seed in pairs]


def scores(found: list[dict[str, Any]], task: str, method: str, split: int = 0, rule: str = "best") -> list[float]:
    """The headline of every seed, read from the records by hand."""
    own = [one for one in found if (one["identity"]["task"], one["identity"]["method"]) == (task, method)]
    return [one["metrics"][rule][o["evaluation"][split]][o["headline"]] for one in own for o in [one["config"]["task"]]]


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["best", "last"])
def test_every_cell_is_mean_and_deviation_of_its_seeds_and_marked_as_it_stands(rule):
    found = every_task(4)
    table = cells(made(found, rule))
    assert list(table) == list(LABELS.values())
    own = {(t, m.name): 100 * np.array(scores(found, t, m.name, rule=rule)) for t in GLUE for m in METHODS}
    own |= {("Average", m.name): np.mean([own[t, m.name] for t in GLUE], axis=0) for m in METHODS}
    seen = set()
    for column, task in enumerate([*GLUE, "Average"]):
        best = max((own[task, method.name] for method in METHODS), key=np.mean)
        for method in METHODS:
            values = own[task, method.name]
            shown = f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            if task == "mnli":
                other = 100 * np.array(scores(found, task, method.name, 1, rule))
                shown += f" / {other.mean():.1f} ± {other.std(ddof=1):.1f}"
            if f"{best.mean():.1f}" == f"{values.mean():.1f}":
                shown = f"**{shown}**"
            elif best.mean() - values.mean() <= best.std(ddof=1):
                shown = f"<u>{shown}</u>"
            if method.name != "lora" and scipy.stats.ttest_rel(values, own[task, "lora"]).pvalue < 0.05:
                shown += r"<sup>\*</sup>"
            assert list(table[LABELS[method.name]].values())[1 + column] == shown
            seen |= set(re.findall(r"^\*\*|<u>|<sup>", shown))
    assert seen == {"**", "<u>", "<sup>"}
    assert f"Epoch: {rule}" in made(found, rule)


def test_the_order_of_the_records_does_not_change_a_byte():
    found = every_task(2) + [record(config("cola", RosaConfig(), lr, seed=s)) for lr in (1e-4, 5e-4) for s in (0, 1)]
    for number, one in enumerate(found):
        one["data"]["splits"]["train"]["rows"] = number
    outputs = set()
    for seed in range(3):
        random.Random(seed).shuffle(found)
        table = results_table(compare(found, "glue", "best"))
        outputs.add((markdown(table), latex(table), long_csv(Study(found, "glue"))))
    assert len(outputs) == 1


def test_the_caption_names_what_selected():
    best = [record(config("cola", seed=seed)) for seed in range(2)]
    assert "epoch (selection: dev-best)" in made(best)
    assert "flatters every method" in made(best)
    assert "last epoch (selection: dev-last)" in made(best, "last")

    held = [
        record(replace(config("cola", seed=seed, lr=lr), selection="holdout")) for seed in range(2) for lr in (1, 2)
    ]
    for run in held:
        run["metrics"]["selection"]["split"] = "holdout"
        for rule in ("best", "last"):
            # What is held out prefers the learning rate that dev does not.
            score = run["metrics"][rule]["validation"]["matthews_correlation"] = 0.1 * run["config"]["train"]["lr"]
            run["metrics"][rule]["holdout"] = {"matthews_correlation": 1 - score}
    table = made(held)
    assert "best epoch (selection: holdout)" in table
    assert "the split that is shown chose nothing" in table
    assert "at the best epoch on the holdout: 1 of {1, 2}" in table
    assert cells(table)["ROSA r=8, every 2 epochs"]["CoLA"].startswith("10.0")
    assert "(selection: dev-best and holdout)" in made([*best, *held])


def test_the_epoch_shown_is_the_one_that_the_runs_were_made_for():
    last = [record(replace(config("cola"), selection="dev-last"))]
    best = [record(config("cola", seed=1))]
    assert own_rule(last, "glue") == "last"
    assert own_rule(best, "glue") == own_rule([*last, *best], "glue") == "best"


def test_one_seed_has_no_deviation_and_the_table_says_so():
    table = made([record(config("mnli", FullConfig()), 0.701), record(config("rte", FullConfig()), 0.5)])
    assert re.fullmatch(r"70\.1/\d+\.\d", cells(table)["Full"]["MNLI"])
    assert cells(table)["Full"]["RTE"] == "50.0"
    assert "One seed: 0 (n=1), so no spread" in table


def test_equal_numbers_are_both_bold():
    found = [record(config("rte", m), s) for m, s in zip(METHODS, (0.71249, 0.7116, 0.71151, 0.5), strict=True)]
    table = cells(made(found))
    assert [row["RTE"] for row in table.values()] == ["**71.2**", "**71.2**", "**71.2**", "50.0"]


def unmarked(cell: str) -> str:
    """A cell without its highlights and marks."""
    return re.sub(r"<sup>.*?</sup>|</?u>|\*\*", "", cell)


@pytest.mark.parametrize("extra", METHODS, ids=lambda method: method.name)
def test_one_more_seed_of_one_row_counts_in_its_cells_and_changes_no_other(extra):
    found = every_task()
    before = cells(made(found))
    for task in GLUE:
        found += [record(config(task, extra, seed=3), -1.0), record(config(task, extra, seed=4), status="failed")]
    after = cells(made(found))
    for label, row in after.items():
        for column, cell in row.items():
            own = label == LABELS[extra.name] and column not in ("Method", "Trainable")
            same = unmarked(cell) == unmarked(before[label][column])
            assert same != own, (label, column)
            counted = "(n=4, 1 failed)" if column != "Average" else "(n=4)"
            assert (counted in cell) == own, (label, column)
    assert "CoLA 3; " in made(found).partition("count in their means, and n says how many they have: ")[2]
    assert "fewer seeds" not in made(found)


def test_tables_differences_and_figures_agree_with_the_csv_file_whatever_seeds_a_row_has():
    """Each cell is the mean over all of a row's scores, and each star and difference has the CSV file's p-value."""
    rng = random.Random(5)
    rows = [
        (FullConfig(), 0.7, (1, 2, 3, 4, 5)),
        (LoraConfig(), 0.4, (1, 2, 3, 4, 5)),
        (IA3Config(), 0.2, (1, 2, 3)),
        (RosaConfig(), 0.41, (2, 3, 6)),
        (RosaConfig(every=0), 0.45, (1, 2, 3)),
    ]
    found = [
        record(config(task, method, seed=seed), mean + 0.1 * rng.random() - 0.05 * (seed > 3))
        for task in ("cola", "rte")
        for method, mean, seeds in rows
        for seed in seeds
    ]
    for run in found:
        run["history"] = [run["metrics"]["last"]]
    comparison = compare(found, "glue")
    lines = {
        (line["row"], line["task"]): line
        for line in csv.DictReader(io.StringIO(long_csv(Study(found, "glue"))))
        if line["headline"] == "True" and line["rule"] == "best"
    }
    shown, averages = cells(made(found)), {}
    for (label, task), line in lines.items():
        cell, own = shown[label][formatting.task_name(task)], line["seeds"].split()
        assert unmarked(cell).split()[0] == f"{100 * float(line['mean']):.1f}"
        assert (f"(n={len(own)})" in cell) == (own != ["1", "2", "3"]), cell
        assert ("\\*" in cell) == bool(line["p_paired_t"] and float(line["p_paired_t"]) < 0.05), cell
        averages.setdefault(label, []).append(float(line["mean"]))
    for label, means in averages.items():
        assert unmarked(shown[label]["Average"]).split()[0] == f"{100 * np.mean(means):.1f}"
    for one in differences(comparison):
        line = lines[one.row.label, one.task.name]
        assert (str(one.paired.n), one.paired.p) == (line["pairs"], pytest.approx(float(line["p_paired_t"])))
    (drawn,), _ = forest(comparison)
    assert {(x["row"], x["task"], str(x["n"])) for x in drawn.rows} == {
        (*key, line["pairs"]) for key, line in lines.items() if line["pairs"]
    }
    pictures = [drawn, *tradeoffs(comparison)[0], *curves(comparison)[0]]
    assert len(pictures) == 3
    for picture in pictures:
        told = re.sub(r"\s", " ", picture.drawing.get_suptitle())
        assert "seeds 1, 2, 3 (n = 3)" in told
        others = told.partition(" Other seeds: ")[2]
        assert "Full on CoLA (n = 5)" in others
        assert "ROSA r=8, every 2 epochs on CoLA (n = " in others
        assert "(IA)3" not in others


def test_the_best_is_the_best_of_the_means_that_are_shown():
    """The two seeds that Full has alone make its mean the lower one."""
    found = [record(config("rte", FullConfig(), seed=s), 0.8 if s < 3 else 0.1) for s in range(5)]
    found += [record(config("rte", m, seed=s), 0.7) for m in (LoraConfig(), IA3Config()) for s in range(3)]
    row = {label: row["RTE"] for label, row in cells(made(found)).items()}
    assert row == {"Full": "52.0 ± 38.3 (n=5)", "LoRA r=8": "**70.0 ± 0.0**", "(IA)3": "**70.0 ± 0.0**"}


def test_a_cell_counts_the_scores_of_its_mean():
    """A run chosen on a holdout may have no score on the split that is shown."""
    found = [record(config("stsb", method, seed=seed), 0.8) for method in METHODS for seed in range(3)]
    for run in found:
        if run["identity"]["method"] == "full":
            run["metrics"]["best"]["validation"]["pearson"] = 0.9
    lost = found[0]["metrics"]["best"]
    lost |= {"holdout": dict(lost["validation"]), "validation": {"pearson": None, "spearmanr": None}}
    found[0]["metrics"]["selection"] = {"split": "holdout", "metric": "pearson", "rule": "highest pearson on holdout"}
    assert cells(made(found))["Full"]["STS-B"].startswith("90.0 ± 0.0 (n=2)")


@pytest.mark.parametrize(
    ("rows", "seeds"),
    [
        ([(0, 1, 2), (0, 1, 2, 3)], (0, 1, 2)),
        ([(0, 1, 2), (0, 1, 2), (5,)], (0, 1, 2)),
        ([(0, 1, 2), (0, 1)], (0, 1)),
        ([(0, 1, 2), (0,)], (0, 1, 2)),
        ([(0,), (1,)], (0, 1)),
        ([(0,), (0, 1, 2)], (0, 1, 2)),
        ([(0,), (0,), (0, 1)], (0, 1)),
        ([(7,)], (7,)),
    ],
)
def test_the_seeds_of_a_task_are_those_of_most_rows(rows, seeds):
    methods = [LoraConfig(), RosaConfig(), IA3Config()]
    found = [
        record(config("rte", method, seed=seed)) for method, own in zip(methods, rows, strict=False) for seed in own
    ]
    assert compare(found, "glue").tasks[0].seeds == seeds


def averages(*failing: float) -> dict[str, str]:
    """The average of each row on two tasks, where LoRA has these scores on RTE, which it tuned to 0.8."""
    found = [record(config(task, FullConfig(), seed=s), 0.5) for task in ("cola", "rte") for s in (0, 1)]
    found += [record(config("cola", LoraConfig(), seed=s), 0.4) for s in (0, 1)]
    found += [record(config("rte", LoraConfig(), seed=s), score) for s, score in enumerate(failing)]
    for run in found:
        tuned = {"lr": 1e-3, "score": 0.5 if run["identity"]["method"] == "full" else 0.8, "status": "done"}
        run["tuning"] = {"experiment": "t", "task": "rte", "seed": 9, "grid": [tuned]}
    return {label: row["Average"] for label, row in cells(made(found)).items() if "Average" in row}


def test_an_average_is_of_rows_with_every_task_at_rates_that_hold():
    assert averages(0.7, 0.62) == {"Full": "50.0 ± 0.0", "LoRA r=8": "**53.0 ± 2.8**"}
    assert averages(0.7, 0.59) == {}, "below 75 % of 0.8"
    assert averages(0.7) == {"Full": "50.0 ± 0.0", "LoRA r=8": "55.0 (partial)"}
    assert averages() == {}, "no score on RTE"


@pytest.mark.parametrize(
    ("failing", "why"),
    [
        ((0.7, 0.59), "rows whose learning rate failed on a seed would decide it: LoRA r=8 on RTE."),
        ((), "not every row has a score on each."),
    ],
)
def test_what_a_table_does_not_average_the_report_does_not_draw(failing, why):
    found = [
        record(config(t, m, seed=s), 0.6) for t in ("cola", "rte") for m in (FullConfig(), RosaConfig()) for s in (0, 1)
    ]
    found += [record(config("cola", LoraConfig(), seed=s), 0.6) for s in (0, 1)]
    found += [record(config("rte", LoraConfig(), seed=s), score) for s, score in enumerate(failing)]
    for run in found:
        grid = [{"lr": 1e-3, "score": 0.8, "status": "done"}] if run["identity"]["method"] == "lora" else []
        run["tuning"] = {"experiment": "t", "task": "rte", "seed": 9, "grid": grid}
    assert f"No average over the tasks: {why}" in made(found)
    drawn = costs_figure(compare(found, "glue"))
    assert drawn is not None
    assert [label for _, label in drawn.legend] == ["Full", LABELS["rosa"]]
    assert drawn.caption.endswith("failed on a seed and would decide the mean: LoRA r=8.")


def test_missing_partial_running_and_failed_runs_are_told_apart():
    found = [record(config("rte", FullConfig(), seed=s), 0.5 + s / 100) for s in (0, 1, 2)]
    found += [record(config("rte", LoraConfig(), seed=s), 0.8 + s / 100) for s in (0, 1)]
    found += [record(config("rte", LoraConfig(), seed=2), status="failed")]
    found += [
        record(config("rte", IA3Config(), seed=0), 0.9),
        record(config("rte", IA3Config(), seed=1), status="running"),
    ]
    found += [record(config("rte", RosaConfig(), seed=0), status="failed")]
    found += [record(config("rte", RosaConfig(), seed=1), float("nan"))]
    found += [record(config("cola", FullConfig(), seed=0), 0.4), record(config("cola", LoraConfig(), seed=0), 0.3)]
    found += [record(config("cola", IA3Config(), seed=0), status="running")]
    table = cells(made(found))
    assert table["Full"]["RTE"] == "51.0 ± 1.0"
    assert table["LoRA r=8"]["RTE"] == "80.5 ± 0.7 (n=2, 1 failed)"
    assert table["(IA)3"]["RTE"] == "90.0 (n=1, 1 running)"
    assert table[LABELS["rosa"]]["RTE"] == "2 failed"
    assert [row["CoLA"] for row in table.values()] == ["**40.0**", "30.0", "running", "—"]
    assert "Average" not in table["Full"], "two rows have no score on a task"

    lines = list(csv.DictReader(io.StringIO(long_csv(Study(found, "glue")))))
    status = {(x["row"], x["task"]): x["status"] for x in lines if x["rule"] == "best"}
    assert status[LABELS["rosa"], "cola"] == "missing"
    assert status[LABELS["rosa"], "rte"] == "failed"
    assert status["LoRA r=8", "rte"] == "partial"
    assert status["(IA)3", "cola"] == "running"


def test_warnings_of_runs_are_footnotes():
    found = [record(config("rte", FullConfig()), 0.5, warnings=["constant predictions"])]
    table = made([*found, record(config("rte", LoraConfig()), 0.4)])
    assert cells(table)["Full"]["RTE"] == "**50.0**<sup>a</sup>"
    assert "- (a) Warning of the run: constant predictions" in table


def test_footnotes_go_on_after_z():
    footnotes = Footnotes()
    letters = [footnotes.mark(str(number)) for number in range(54)]
    assert letters[:2] + letters[25:28] + letters[51:53] == ["a", "b", "z", "aa", "ab", "az", "ba"]
    assert footnotes.mark("27") == "ab"


# --- rows ------------------------------------------------------------------------------------------------------------


def test_settings_that_differ_make_rows_of_their_own():
    methods = [LoraConfig(rank=2), LoraConfig(rank=8), LoraConfig(rank=8, alpha=32.0), RosaConfig(every=0)]
    methods += [RosaConfig(sampling="top", every=1), RosaConfig(rank=0.25, unit="step", every=50)]
    found = [record(config("rte", method), 0.5) for method in methods]
    assert list(cells(made(found))) == [
        "LoRA r=2",
        "LoRA r=8",
        "LoRA r=8, alpha=32.0",
        "ROSA r=0.25, every 50 steps",
        "ROSA r=8, never resampled",
        "ROSA r=8, every 1 epoch, top",
    ]
    assert "Where a row does not name it, as by default: alpha=16.0 (LoRA), sampling=random (ROSA)." in made(found)


def test_labels_of_the_ablations_are_short_and_defaults_come_first():
    methods = [RosaConfig(every=1, sampling=one) for one in ("bottom", "random", "top", "window")]
    methods += [RosaConfig(every=0, factorization=one) for one in ("random_add", "svd_equal")]
    methods += [RosaConfig(split="symmetric"), RosaConfig(optimizer_state="keep", head="freeze")]
    table = made([record(config("rte", method), 0.5) for method in methods])
    assert list(cells(table)) == [
        "ROSA r=8, never resampled",
        "ROSA r=8, never resampled, random_add",
        "ROSA r=8, every 1 epoch",
        "ROSA r=8, every 1 epoch, bottom",
        "ROSA r=8, every 1 epoch, top",
        "ROSA r=8, every 1 epoch, window",
        "ROSA r=8, every 2 epochs, symmetric",
        "ROSA r=8, every 2 epochs, head=freeze, optimizer_state=keep",
    ]
    assert "Learning rate, fixed (the records know of no search): 1e-3 for all 8 rows." in table


@pytest.mark.parametrize(
    ("methods", "labels"),
    [
        (
            [RosaConfig(every=0, unit=unit) for unit in ("epoch", "step")],
            ["ROSA r=8, never resampled, unit=epoch", "ROSA r=8, never resampled, unit=step"],
        ),
        (
            [RobustConfig(rank=rank, density=0.04, schedule="sparse_only") for rank in (4, 8)],
            [f"RoSA (robust) d=4%, sparse part alone, rank={rank}" for rank in (4, 8)],
        ),
        (
            [RobustConfig(rank=4, density=density) for density in (0.02081, 0.02083)],
            [f"RoSA (robust) r=4 d=2.08%, density={density}" for density in (0.02081, 0.02083)],
        ),
    ],
)
def test_rows_of_settings_that_a_label_leaves_out_or_rounds_have_labels_of_their_own(methods, labels):
    found = [record(config("rte", method), 0.1 * place) for place, method in enumerate([*methods, LoraConfig()], 1)]
    table = cells(made(found))
    assert {label: table[label]["RTE"] for label in labels} == {labels[0]: "10.0", labels[1]: "20.0"}
    assert len(table) == 3


def test_a_setting_that_differs_by_task_does_not_split_a_row_and_one_within_a_task_does():
    by_task = [record(config("rte", FullConfig(), epochs=3)), record(config("cola", FullConfig(), epochs=5))]
    assert list(cells(made(by_task))) == ["Full"]
    found = [*by_task, record(config("cola", FullConfig(), epochs=3))]
    assert list(cells(made(found))) == ["Full, train.epochs=3", "Full, train.epochs=5"]


def test_settings_that_differ_between_methods_are_loud():
    fair = [record(config("rte", FullConfig())), record(config("rte", LoraConfig()))]
    assert "not equal" not in made(fair)
    found = [record(config("rte", FullConfig(), epochs=20)), record(config("rte", LoraConfig()))]
    assert "**Settings are not equal:** train.epochs is 10 (LoRA r=8); 20 (Full)." in made(found)


def test_several_models_compete_apart():
    other = ModelConfig(name="other", source="mini")
    found = [record(config("rte", m), s) for m, s in ((FullConfig(), 0.5), (LoraConfig(), 0.4))]
    found += [record(config("rte", m, model=other), s) for m, s in ((FullConfig(), 0.9), (LoraConfig(), 0.8))]
    table = cells(made(found))
    bold = [label for label, row in table.items() if row["RTE"].startswith("**")]
    assert bold == ["mini-roberta: Full", "other: Full"]


# --- the choice of the learning rate ---------------------------------------------------------------------------------


def test_the_best_learning_rate_is_shown_and_the_csv_has_the_losers():
    grid = {1e-4: (0.2, 0.4), 1e-3: (0.9, 0.7), 1e-2: (0.85, 0.6)}
    found = [record(config("rte", RosaConfig(), lr, s), v) for lr, row in grid.items() for s, v in enumerate(row)]
    found += [record(config("rte", FullConfig(), 1e-3, s), 0.1) for s in (0, 1)]
    table = made(found)
    assert cells(table)[LABELS["rosa"]]["RTE"] == f"**80.0 ± {np.std([90, 70], ddof=1):.1f}**"
    assert "1e-3 of {1e-4, 1e-3, 1e-2} for ROSA r=8, every 2 epochs" in table
    assert "**Learning-rate grids are not equal:**" in table
    lines = [
        line
        for line in csv.DictReader(io.StringIO(long_csv(Study(found, "glue"))))
        if line["method"] == "rosa" and line["rule"] == "best"
    ]
    assert {(line["lr"], line["selected"]) for line in lines} == {
        ("1e-4", "False"),
        ("1e-3", "True"),
        ("1e-2", "False"),
    }
    for line in lines:
        values = grid[float(line["lr"])]
        assert [float(value) for value in line["scores"].split()] == list(values)
        assert float(line["mean"]) == pytest.approx(np.mean(values))
        assert float(line["deviation"]) == pytest.approx(np.std(values, ddof=1))


def test_a_tuned_learning_rate_is_shown_with_its_grid():
    grid = [{"lr": lr, "score": 0.5, "status": "done"} for lr in (1e-4, 1e-3)]
    tuning = {"experiment": "tuning", "task": "cola", "seed": 7, "grid": grid, "chosen": 1e-3}
    tuning |= {"metric": "matthews_correlation", "rule": "best"}
    table = made([record(config("rte", method), 0.5, tuning=tuning) for method in (FullConfig(), RosaConfig())])
    assert "tuned: tuning on CoLA, seed 7" in table
    assert "1e-3 of {1e-4, 1e-3} for Full / ROSA" in table
    assert "not equal" not in table


def test_a_tuned_rate_that_the_study_replaced_is_named_beside_the_one_shown():
    """Tuning chose 1e-3, which did worse than another rate over the study's seeds."""
    grid = [{"lr": lr, "score": lr, "status": "done"} for lr in (1e-4, 3e-4, 1e-3)]
    tuning = {"experiment": "tuning", "task": "rte", "seed": 7, "grid": grid, "chosen": 1e-3, "rule": "best"}
    found = [record(config("rte", LoraConfig(), 1e-3, s), 0.4, tuning=tuning) for s in (0, 1)]
    assert "Learning rate, tuned: tuning on RTE, seed 7, by the score there: 1e-3 of {" in notes(made(found))
    found += [record(config("rte", LoraConfig(), 3e-4, s), 0.6) for s in (0, 1)]
    assert (
        "tuned: tuning on RTE, seed 7, by the score there: 1e-3; then in each cell among the rates that were run here, "
        "{3e-4, 1e-3}, by its mean score at the best epoch, as shown: 3e-4 of {1e-4, 3e-4, 1e-3} for LoRA r=8."
    ) in notes(made(found))


def test_one_lucky_run_at_another_rate_does_not_replace_a_row():
    found = [record(config("cola", LoraConfig(), 1e-3, s), 0.2 + s / 100) for s in range(5)]
    found += [record(config("cola", IA3Config(), 1e-3, s), 0.1) for s in range(5)]
    assert "compared over those" not in made(found)
    found += [record(config("cola", LoraConfig(), 3e-3, 4), 0.9), record(config("cola", LoraConfig(), 1e-2, 9), 0.95)]
    table = made(found)
    assert cells(table)["LoRA r=8"]["CoLA"] == "**22.0 ± 1.6**"
    assert "1e-3 of {1e-3, 3e-3, 1e-2} for LoRA r=8. Learning rates with other seeds are compared over those" in table


def test_notes_on_learning_rates_name_their_tasks():
    """The tuning task has a grid of its own in the same table, and the others take its learning rate."""
    grid = [{"lr": lr, "score": lr, "status": "done"} for lr in (1e-4, 1e-3)]
    tuning = {"experiment": "glue", "task": "cola", "seed": 0, "grid": grid, "chosen": 1e-3} | {"rule": "best"}
    found = [record(config("cola", LoraConfig(), lr), lr) for lr in (1e-4, 1e-3)]
    found += [record(config(task, LoraConfig(), 1e-3), 0.5, tuning=tuning) for task in ("rte", "mrpc")]
    table = notes(made(found))
    assert "Learning rate on CoLA, chosen in each cell" in table
    assert "Learning rate on MRPC, RTE, tuned: glue on CoLA, seed 0, by the score there: 1e-3 of {1e-4, 1e-3}" in table
    # A row whose rates are all fixed stands beside it: each outcome of that note names its tasks.
    table = notes(made([*found, *(record(config(task, FullConfig(), 1e-5)) for task in ("cola", "rte", "mrpc"))]))
    assert "Learning rate, fixed (the records know of no search): 1e-5 for Full." in table
    found += [record(config(task, RosaConfig(), 1e-2), 0.5) for task in ("rte", "mrpc")]
    found += [record(config("cola", RosaConfig(), lr), lr) for lr in (1e-2, 1e-3)]
    found += [record(config(task, FullConfig(), 1e-5)) for task in ("cola", "rte", "mrpc")]
    table = notes(made(found))
    assert "1e-5 on MRPC, CoLA, RTE for Full; 1e-2 on MRPC, RTE for ROSA r=8, every 2 epochs." in table
    assert "{1e-3, 1e-2} on CoLA" in table
    assert "and {1e-2} on MRPC, RTE" in table or "{1e-2} on MRPC, RTE and" in table


def test_the_grid_table_has_every_learning_rate_and_marks_the_winner():
    found = [record(config("cola", FullConfig(), lr, experiment="t"), s) for lr, s in ((1e-4, 0.3), (1e-3, 0.6))]
    found += [record(config("cola", FullConfig(), 1e-2, experiment="t"), status="failed")]
    found += [record(config("cola", LoraConfig(), 1e-4, experiment="t"), 0.2)]
    table = cells(markdown(grid_table(compare(found, "t", "best"))))
    assert list(table["Full"].values()) == ["Full", "30.0", "**60.0**", "failed"]
    assert list(table["LoRA r=8"].values()) == ["LoRA r=8", "**20.0**", "—", "—"]


# --- captions and notes ----------------------------------------------------------------------------------------------


def test_the_notes_say_what_is_shown_and_how_to_repeat_it():
    text = notes(made(every_task()))
    for part in (
        "accuracy ×100 of MNLI (validation_matched / validation_mismatched; chosen and ranked by the first), SST-2",
        "Matthews correlation ×100 of CoLA; Pearson correlation ×100 of STS-B",
        "over seeds 0, 1, 2 (n=3)",
        "Model: mini-roberta (mini, model.safetensors sha256 abababababab)",
        "train 100, validation 100 (SST-2",
        "Runs: 108. Commit: `0123456789ab`.",
        "`python scripts/train.py task=cola seed=0`",
        "**Mini scale:**",
    ):
        assert part in text


def test_real_data_are_not_called_mini_and_changed_data_are_loud():
    hub = DataConfig("hub", path="nyu-mll/glue", revision="c" * 40)
    found = [record(config("rte", FullConfig(), seed=s, data=hub), 0.5) for s in (0, 1)]
    assert "Mini scale" not in made(found)
    assert "hub nyu-mll/glue, revision cccccccccccc" in made(found)
    assert "data changed" not in made(found)
    found[0]["data"]["splits"]["train"]["sha256"] = "other"
    found[0]["environment"]["dirty"] = True
    assert "**The data changed between runs:** RTE train" in made(found)
    assert "`0123456789ab`, `0123456789ab with uncommitted changes`" in made(found)


SAID = {
    "hub": ({"path": "nyu-mll/glue", "revision": "c" * 40}, "hub nyu-mll/glue, revision cccccccccccc"),
    "local": ({"dir": "glue"}, "local files"),
    "files": ({"train": "a.csv", "validation": "b.tsv"}, "own files (train a.csv, validation b.tsv)"),
    "teacher": ({"seed": 3}, "teacher, generated with seed 3"),
    "diabetes": ({"seed": 3}, "diabetes, split with seed 3"),
    "mini": ({"seed": 3}, "mini, generated with seed 3"),
}
"""Settings of each source of data, and what a table's notes call it."""


@pytest.mark.parametrize("source", SOURCES)
def test_the_notes_say_where_the_data_come_from(source):
    settings, said = SAID[source]
    one = record(config("rte", FullConfig()), 0.5)
    one["config"]["data"] = asdict(DataConfig(source, **settings))
    assert f"Data: {said}. Rows: train 100, validation 100 (RTE)." in notes(made([one]))


def test_data_drawn_for_each_seed_have_changed_only_within_a_seed():
    own = DataConfig("mini", per_seed=True)
    found = [
        record(config("rte", method, seed=s, data=own), 0.5) for method in (FullConfig(), RosaConfig()) for s in (0, 1)
    ]
    for one in found:
        one["data"]["splits"]["train"]["sha256"] = f"of seed {one['identity']['seed']}"
    assert "data changed" not in made(found)
    found[0]["data"]["splits"]["train"]["sha256"] = "other"
    assert "**The data changed between runs:** RTE train" in made(found)


def test_evaluation_rows_that_are_training_rows_too_are_told():
    def run(task: str, seed: int = 0, **validation: Any) -> dict[str, Any]:
        one = record(config(task, seed=seed, data=DataConfig("local", dir="glue")), 0.5)
        one["data"]["splits"]["validation"] |= validation
        return one

    plain = [run("rte"), run("sst2")]
    assert "training row's too" not in made(plain)
    seen = [run("sst2", in_train=1, inside_train=7), run("sst2", seed=1, in_train=3, inside_train=7)]
    counted = [run("mrpc", in_train=0), run("rte", in_train=0), *seen, run("cola")]
    parts = (
        "validation 1–3 of 100, 7 within a training text (SST-2)",
        "validation 0 of 100 (MRPC, RTE)",
        "not counted (CoLA)",
    )
    assert f"texts are a training row's too: {'; '.join(parts)}." in made(counted)


def test_trainable_parameters_are_counted_apart_from_the_head():
    params = {"trainable": 294912, "head": 592130, "total": 124_647_170}
    one = record(config("rte", RosaConfig()), 0.5, params=params)
    other = record(config("stsb", RosaConfig()), 0.5, params=params | {"head": 641_329})
    frozen = record(config("rte", RosaConfig(head="freeze")), 0.5, params=params | {"head": 0})
    shown = [row["Trainable"] for row in cells(made([one, other, frozen])).values()]
    assert sorted(shown) == ["0.29M (head frozen)", "0.29M + 0.59M–0.64M head"]


def test_an_experiment_without_records_names_those_that_have_some():
    with pytest.raises(ReportError, match="'other' has no records; there are: glue"):
        compare([record(config())], "other", "best")


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_the_csv_has_every_official_metric_split_and_rule():
    found = every_task()
    lines = list(csv.DictReader(io.StringIO(long_csv(Study(found, "glue")))))
    keys = {(x["method"], x["task"], x["split"], x["metric"], x["rule"], x["lr"]) for x in lines}
    assert len(keys) == len(lines) == 4 * 2 * (2 + 8 + 3)  # MNLI twice; MRPC, QQP and STS-B with a second metric
    for line in lines:
        own = [
            one
            for one in found
            if (one["identity"]["task"], one["identity"]["method"]) == (line["task"], line["method"])
        ]
        values = [one["metrics"][line["rule"]][line["split"]][line["metric"]] for one in own]
        assert [float(value) for value in line["scores"].split()] == values
        assert float(line["mean"]) == pytest.approx(np.mean(values), abs=1e-15)
        assert json.loads(line["settings"])["method.name"] == line["method"]


# --- published numbers -----------------------------------------------------------------------------------------------


def test_published_numbers_stand_beside_and_never_compete():
    published = read_published(ROOT / "results" / "paper" / "glue_roberta_base.csv")
    table = markdown(results_table(compare(every_task(), "glue", "best"), published))
    rows = cells(table)
    lora = next(row for label, row in rows.items() if label.startswith("LoRA (Hu et al. 2021)<sup>"))
    assert lora["SST-2"] == "95.1 ± 0.2"
    assert lora["RTE"].startswith("86.6 ± 0.7<sup>")
    assert lora["WNLI"] == lora["Average"] == "—"
    assert lora["Trainable"] == "0.30M"
    assert "fine-tuned on MNLI" in table
    assert "arXiv 2106.09685, table 2" in table
    own = cells(made(every_task()))
    assert all(rows[label] == row for label, row in own.items() if "<sup>" not in str(row))


def test_numbers_of_every_published_metric_are_found():
    accuracy = Published("m", "mrpc", "lora", "accuracy", 90.0, None, 1, "Someone 2020, somewhere", "")
    found, f1 = [record(config("mrpc"))], replace(accuracy, metric="f1", mean=93.0)
    for order in ((accuracy, f1), (f1, accuracy)):
        table = markdown(results_table(compare(found, "glue", "best"), order))
        assert "90.0" in table
        assert "Published as" not in table


def test_a_number_of_another_metric_is_not_shown():
    entry = Published("m", "mrpc", "lora", "f1", 93.0, None, 1, "Someone 2020, somewhere", "")
    table = markdown(results_table(compare([record(config("mrpc"))], "glue", "best"), [entry]))
    assert "93.0" not in table
    assert "Published as f1, while this column is accuracy" in table


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m,rte,lora,accuracy,eighty,,1,S,", r"p\.csv:2.*eighty"),
        ("m,rte,lora,accuracy,80,,1,,", r"p\.csv:2: source is empty"),
        ("m,rte,lora,accuracy,80", r"p\.csv:2: expected 9 fields"),
    ],
)
def test_a_wrong_line_of_published_numbers_is_named(tmp_path, line, message):
    path = tmp_path / "p.csv"
    path.write_text("model,task,method,metric,mean,std,trainable_parameters,source,note\n" + line + "\n")
    with pytest.raises(ReportError, match=message):
        read_published(path)
    path.write_text("task,mean\n")
    with pytest.raises(ReportError, match=r"p\.csv:1: columns"):
        read_published(path)


# --- rendering -------------------------------------------------------------------------------------------------------

NASTY = r"a&b%c_d#e$f{g}h~i^j\k<l>m|n`o*p"


def unescaped(text: str) -> str:
    """LaTeX text as it prints, for the commands that the renderer uses."""
    text = re.sub(r"\\(textbf|texttt|textsuperscript)\{", "{", text)
    named = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    named |= {"textbar": "|", "textasciigrave": "`", "textquotedbl": '"', "textquotesingle": "'", "allowbreak": ""}
    tokens = re.findall(r"\\([a-zA-Z]+)\{\}|\\([&%$#_{}])|([{}])|(.)", text, re.DOTALL)
    assert not any(plain and plain in "&%$#_~^\\" for _, _, _, plain in tokens)
    return "".join(named[name] if name else symbol or plain for name, symbol, _, plain in tokens)


def test_latex_escapes_every_special_character():
    assert unescaped(escape(NASTY + "\"'")) == NASTY + "\"'"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a &lt;b&gt; W&B", r"a \&lt;b\&gt; W&B"),
        ("x ~~y~~, $5 and $6", r"x \~\~y\~\~, \$5 and \$6"),
        ("# h", r"\# h"),
        ("- item", r"\- item"),
        ("12. item", r"12\. item"),
        ("-0.1", "-0.1"),
        ("a\rb\r\nc\u2028d", "a b c d"),
    ],
)
def test_no_character_of_a_text_is_markup(text, written):
    assert markdown_text(text) == written


def test_a_row_of_latex_does_not_begin_with_an_option_of_the_row_before():
    rows = [(Cell(label), Cell("1")) for label in ("Δ-LoRA", "*x", "[y", "z")]
    lines = latex(Table("t", "c", ("a", "b"), tuple(rows), ())).splitlines()
    assert [line.partition(" & ")[0] for line in lines if line.endswith("& 1 \\\\")] == [
        "{}[U+0394]-LoRA",
        "{}*x",
        "{}[y",
        "z",
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.99961, "1.00"), (9.996, "10.0"), (99.96, "100"), (999.96, "1,000"), (-0.09996, "-0.100"), (0.0432, "0.0432")],
)
def test_a_measurement_has_three_digits(value, written):
    assert formatting.significant(value) == written


def nasty_table() -> Table:
    row = (Cell(NASTY), Cell("71.2 ± 0.4", bold=True, marks=("a", "b")), Cell("—"))
    spans = (Span(NASTY), Span(f"{NASTY} --results=a/b ``x``", "code"), Span(NASTY, "bold"))
    return Table("na_me", NASTY, ("Method", "SST-2", "x_y"), (row, row), (spans,))


@pytest.mark.parametrize("table", [nasty_table(), results_table(compare(every_task(), "glue", "best"))])
def test_latex_is_a_whole_table_with_as_many_cells_as_columns(table):
    text = latex(table)
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    opened = re.findall(r"\\(begin|end)\{([a-z*]+)\}", text)
    stack: list[str] = []
    for what, name in opened:
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    body = text.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
    lines = body.strip().split("\n")
    assert len(lines) == len(table.rows) + 1
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    for line in lines:
        assert line.endswith(" \\\\")
        assert len(re.findall(r"(?<!\\)&", line)) + 1 == len(columns[1]) == len(table.header)
    assert all(order in text for order in ("\\caption{", "\\label{tab:", "\\midrule"))
    assert text.isascii()


def test_markdown_keeps_its_columns_whatever_the_names():
    text = markdown(nasty_table())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {4}
    assert {len(line) for line in rows} == {len(rows[0])}
    assert r"\*p" in rows[2]
    # A fence of three backticks, since the text has two.
    assert f"``` {NASTY} --results=a/b ``x`` ```" in text


@pytest.mark.parametrize(
    ("function", "value", "written"),
    [
        (formatting.rate, 0.0005, "5e-4"),
        (formatting.rate, 1.25e-05, "1.25e-5"),
        (formatting.rate, 2.0, "2"),
        (formatting.rate, 0.1, "1e-1"),
        (lambda value: formatting.score(value, "accuracy"), -0.0001, "0.0"),
        (lambda value: formatting.score(value, "matthews_correlation"), -0.1234, "-12.3"),
        (lambda value: formatting.score(value, "bleu"), 1.0, "100.0"),
        (lambda value: formatting.score(value, "perplexity"), 1.704, "1.70"),
        (lambda value: formatting.score(value, "nist"), 8.6094, "8.61"),
        (formatting.count, 812, "812"),
        (formatting.count, 8192, "8.2K"),
        (formatting.count, 147456, "0.15M"),
    ],
)
def test_numbers_are_written(function, value, written):
    assert function(value) == written


# --- the script ------------------------------------------------------------------------------------------------------


def run_script(*arguments: str) -> Ended:
    return answer("make_tables", *arguments)


def test_the_script_writes_every_experiment_twice_the_same(tmp_path):
    grid = [record(config("cola", RosaConfig(), lr, experiment="tuning"), lr) for lr in (1e-3, 1e-4)]
    tuning = {"experiment": "tuning", "task": "cola", "seed": 0, "metric": "m", "rule": "best", "chosen": 1e-3}
    tuning["grid"] = [{"lr": lr, "score": lr, "status": "done"} for lr in (1e-4, 1e-3)]
    for number, one in enumerate([*grid, record(config("rte"), 0.5, tuning=tuning)]):
        records.write(tmp_path / "records" / str(number), one)
    (tmp_path / "records" / "broken.json").write_text("{")
    written = []
    for _ in range(2):
        done = run_script("--results", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "records" / "broken.json") in done.stderr
        written.append({path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == sorted(f"{n}.{end}" for n in ("glue", "tuning") for end in ("md", "csv", "tex"))
    assert "learning-rate grid" in written[0]["tuning.md"].decode()
    assert done.stdout == "\n".join(written[0][f"{n}.md"].decode() for n in ("glue", "tuning")) + "\n"


def test_an_experiment_that_tunes_itself_has_its_results_and_its_grid(tmp_path):
    """One task's runs have a grid; the others took their learning rate from it."""
    tuning = {"experiment": "glue", "task": "cola", "seed": 0, "metric": "m", "rule": "best", "chosen": 1e-3}
    tuning["grid"] = [{"lr": lr, "score": lr, "status": "done"} for lr in (1e-4, 1e-3)]
    grid = [record(config("cola", RosaConfig(), lr), lr) for lr in (1e-3, 1e-4)]
    for number, one in enumerate([*grid, record(config("rte", lr=1e-3), 0.5, tuning=tuning)]):
        records.write(tmp_path / "records" / str(number), one)
    done = run_script("--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results, rates = done.stdout.split("**glue: ")[1:]
    assert re.search(r"\| Method +\| CoLA \| +RTE \|", results)
    assert rates.startswith("learning-rate grid")
    assert "ROSA r=8, every 2 epochs, CoLA" in rates
    assert "ROSA r=8, every 2 epochs, RTE" not in rates
    labels = re.findall(r"\\label\{(.*)\}", (tmp_path / "tables" / "glue.tex").read_text())
    assert labels == ["tab:glue", "tab:glue-grid"]


def test_the_printed_commands_read_the_records_that_the_table_shows(tmp_path, monkeypatch):
    results = tmp_path / "my results"
    for seed in (0, 1):
        records.write(results / "records" / "glue" / str(seed), record(config(seed=seed), 0.5))
    own = record(config(seed=2), 0.7)
    records.write(records.run_folder(results, own["identity"]), own)
    (tmp_path / "paper.csv").write_text((ROOT / "results" / "paper" / "glue_roberta_base.csv").read_text())
    monkeypatch.chdir(tmp_path)
    options = ("--results", "my results", "--evidence", "--paper", "paper.csv", "--rule", "last")
    shown = run_script(*options, "--experiment", "glue")
    assert shown.returncode == 0, shown.stderr
    assert "Runs: 3, 2 of them from records" in shown.stdout
    (table,) = re.findall(r"`python scripts/make_tables\.py ([^`]*)`", shown.stdout)
    assert run_script(*shlex.split(table)).stdout == shown.stdout
    (computes,) = re.findall(r"`python (scripts/make_baselines\.py [^`]*)` does", shown.stdout)
    monkeypatch.setattr("sys.argv", shlex.split(computes))
    asked = make_baselines.arguments()
    assert (asked.results, asked.evidence, asked.experiment) == (Path("my results"), True, ["glue"])
    monkeypatch.chdir(results.parent)
    results.rename("results")
    plain = run_script("--experiment", "glue").stdout
    assert "`python scripts/make_tables.py --experiment glue --rule best`" in plain
    assert "`python scripts/make_baselines.py --experiment glue` does" in plain


def test_tables_that_the_records_no_longer_give_are_removed(tmp_path):
    def made(*found: dict[str, Any]) -> tuple[set[str], str]:
        shutil.rmtree(tmp_path / "records", ignore_errors=True)
        for number, one in enumerate(found):
            records.write(tmp_path / "records" / str(number), one)
        done = run_script("--results", str(tmp_path))
        assert done.returncode == 0, done.stderr
        return {path.name for path in (tmp_path / "tables").iterdir()}, done.stderr

    def run(method, seed, experiment="glue", **more):
        score = 0.5 + seed / (10 if method.name == "lora" else 8)  # differences without a spread have no interval
        return record(config(method=method, seed=seed, experiment=experiment), score, **more)

    pairs = [run(method, seed, costs=costs(0.1)) for method in (LoraConfig(), RosaConfig()) for seed in (0, 1)]
    plain = {f"glue.{ending}" for ending in ("md", "tex", "csv")}
    parts = {f"glue_costs.{ending}" for ending in ("md", "tex", "csv")} | {
        "glue_differences.md",
        "glue_differences.tex",
    }
    written, said = made(*pairs)
    assert written == plain | parts
    (tmp_path / "tables" / "glue_costs.txt").write_text("notes")
    (tmp_path / "tables" / "glue_costs_of_mine.md").write_text("notes")
    notes = {"glue_costs.txt", "glue_costs_of_mine.md"}
    assert made(*pairs) == (plain | parts | notes, said)
    written, said = made(run(RosaConfig(), 0))
    assert written == plain | notes
    assert sorted(said.splitlines()) == sorted(
        f"removed: {tmp_path / 'tables' / name}, of records that are no longer there" for name in parts
    )
    # The tables of another experiment of such a name are not a part's.
    other = run(RosaConfig(), 0, "glue_costs")
    written, said = made(run(RosaConfig(), 0), other)
    assert written == plain | notes | {name for name in parts if "costs" in name}
    assert said == ""


def test_the_printed_command_reads_from_where_the_records_were_read():
    read = ["--from", "wandb", "--project", "p", "--entity", "e"]
    asked = cli.parser("tables").parse_args(read)
    assert cli.words(asked) == Words((), tuple(read))
    assert cli.words(cli.parser("report").parse_args([])) == Words()


def test_the_script_makes_a_table_for_each_model(tmp_path):
    other = ModelConfig(name="other", source="folder", path="x")
    for number, model in enumerate((None, other)):
        records.write(tmp_path / "records" / str(number), record(config("rte", model=model), 0.5))
    done = run_script("--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("**glue: ")[1:]
    assert first.startswith("mini-roberta, scores")
    assert second.startswith("other, scores")
    assert all(part.count("| ROSA r=8, every 2 epochs |") == 1 for part in (first, second))
    assert (tmp_path / "tables" / "glue.md").read_text() + "\n" == done.stdout
    labels = re.findall(r"\\label\{(.*)\}", (tmp_path / "tables" / "glue.tex").read_text())
    assert labels == ["tab:glue-mini-roberta", "tab:glue-other"]


def test_the_script_says_when_there_is_nothing_to_show(tmp_path):
    done = run_script("--results", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no records under {tmp_path}" in done.stderr


@pytest.mark.parametrize(("source", "cited"), [("hub", True), ("mini", False)])
def test_published_numbers_are_the_default_for_roberta_base_on_real_data_only(tmp_path, source, cited):
    (tmp_path / "paper").mkdir()
    paper = (ROOT / "results" / "paper" / "glue_roberta_base.csv").read_text()
    (tmp_path / "paper" / "glue_roberta_base.csv").write_text(paper)
    model = ModelConfig(name="roberta-base", source="hub", path="roberta-base")
    records.write(tmp_path / "records", record(config(model=model, data=DataConfig(source, path="nyu-mll/glue")), 0.5))
    done = run_script("--results", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert ("Hu et al. 2021" in done.stdout) == cited


def test_committed_records_are_shown_as_such_and_never_in_place_of_own_runs(tmp_path):
    def script(*more):
        done = run_script("--results", str(tmp_path), *more)
        assert done.returncode == 0, done.stderr
        return done

    for seed in (0, 1):
        records.write(tmp_path / "records" / "glue" / str(seed), record(config(seed=seed), 0.5))
    assert "- Runs: 2, from records that are committed with the project; this folder has run none" in script().stdout
    failed = record(config(seed=0), status="failed")
    records.write(records.run_folder(tmp_path, failed["identity"]), failed)
    done = script()
    assert "left out: committed records of glue, which this folder has runs of; --evidence shows both" in done.stderr
    assert "| failed" in done.stdout
    assert "50.0" not in done.stdout
    assert "records that are committed" not in done.stdout
    beside = script("--evidence").stdout
    assert "| 50.0 (n=1, 1 failed)<sup>a</sup>" in beside
    assert "(a) Of a record that is committed with the project; this folder has not done the run." in beside
    assert "- Runs: 2, 1 of them from records that are committed with the project." in beside
