"""The table of differences from LoRA: against SciPy and a correction by hand, and a verdict for each case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from rosa.config import FullConfig, IA3Config, LoraConfig, RosaConfig
from rosa.report.figures.forest import forest
from rosa.report.grouping import compare
from rosa.report.study import Study
from rosa.report.tables.differences import differences, differences_table
from rosa.report.tables.experiment import differences as tables_of
from tests.report.synthetic_records import config, record

SEEDS = (1, 2, 3, 4, 5)
NOISE = np.array([-0.010, 0.004, 0.001, 0.008, -0.003])
AHEAD = {"cola": 0.05, "rte": -0.05, "mrpc": 0.001}


def scores(task: str) -> tuple[list[float], list[float]]:
    """LoRA's and ROSA's."""
    lora = [0.5 + 0.02 * seed for seed in SEEDS]
    return lora, [score + AHEAD[task] + noise for score, noise in zip(lora, NOISE, strict=True)]


def study(tasks: tuple[str, ...] = tuple(AHEAD), seeds: tuple[int, ...] = SEEDS) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        for method, values in zip((LoraConfig(), RosaConfig()), scores(task), strict=True):
            by_seed = dict(zip(SEEDS, values, strict=True))
            found += [record(config(task, method, seed=seed), by_seed[seed]) for seed in seeds]
    return found


def test_each_difference_has_its_interval_and_its_verdict() -> None:
    found = {one.task.name: one for one in differences(compare(study(), "glue"))}
    assert {task: one.verdict for task, one in found.items()} == {"cola": "better", "rte": "worse", "mrpc": "open"}
    p = {task: scipy.stats.ttest_rel(*reversed(scores(task))).pvalue for task in AHEAD}
    in_order = sorted(p, key=lambda task: p[task])
    for task, one in found.items():
        lora, rosa = scores(task)
        interval = scipy.stats.ttest_rel(rosa, lora).confidence_interval()
        assert one.paired.interval == pytest.approx((interval.low, interval.high))
        assert (one.paired.against, one.paired.n) == ("LoRA r=8", 5)
        assert one.detectable == one.paired.detectable(len(AHEAD)) > one.paired.detectable()
    # Holm: three times the smallest, twice the next or the one before, the largest as it is.
    assert found[in_order[0]].p_holm == pytest.approx(3 * p[in_order[0]])
    assert found[in_order[1]].p_holm == pytest.approx(max(2 * p[in_order[1]], 3 * p[in_order[0]]))
    assert found[in_order[2]].p_holm == pytest.approx(p[in_order[2]])


def test_of_an_error_less_is_better() -> None:
    found = study(("cola", "rte"))
    for run in found:
        run["config"]["task"]["lower_is_better"] = True
    verdicts = {one.task.name: one.verdict for one in differences(compare(found, "glue"))}
    assert verdicts == {"cola": "worse", "rte": "better"}


def test_a_line_says_it_in_points() -> None:
    table = differences_table(compare(study(("cola",)), "glue"))
    assert table is not None
    (line,) = table.rows
    assert [cell.text for cell in line] == [
        "ROSA r=8, every 2 epochs", "CoLA", "+5.0", "+4.1 to +5.9", "5", "<0.001", "<0.001", "1.2", "better"
    ]  # fmt: skip


def test_without_seeds_to_pair_there_is_no_table() -> None:
    assert tables_of(Study(study(seeds=(1,)), "glue")) == []
    assert tables_of(Study([run for run in study() if run["identity"]["method"] == "rosa"], "glue")) == []


def test_the_figure_shows_each_interval() -> None:
    comparison = compare(study(), "glue")
    (picture,), left_out = forest(comparison)
    assert not left_out
    expected = {one.task.name: (one.paired.difference, *one.paired.interval) for one in differences(comparison)}
    assert {line["task"]: (line["difference"], line["low"], line["high"]) for line in picture.rows} == expected
    for axes, (task, (mean, low, high)) in zip(picture.drawing.axes, expected.items(), strict=True):
        ((marks, caps, _),) = axes.containers
        assert axes.get_title().replace("-", "").lower() == task
        assert marks.get_xdata() == pytest.approx([100 * mean])
        assert [cap.get_xdata()[0] for cap in caps] == pytest.approx([100 * low, 100 * high])
    assert forest(compare(study(seeds=(1,)), "glue"))[0] == []


def test_the_figure_has_a_row_of_one_seed_without_an_interval_and_names_those_it_cannot_draw() -> None:
    found = study(("cola", "rte"))
    found += [record(config("cola", IA3Config(), seed=1), 0.6), record(config("rte", IA3Config(), seed=9), 0.6)]
    found += [record(config("rte", FullConfig(), seed=9), 0.6)]
    (picture,), left_out = forest(compare(found, "glue"))
    assert left_out == ["Full: no LoRA row to compare it with, or no seed in common"]
    labels = [label.get_text() for label in picture.drawing.axes[0].get_yticklabels()]
    cola, rte = picture.drawing.axes
    marks = [one for one in cola.containers if one.lines[0].get_ydata() == [labels.index("(IA)3")]]
    assert [one.lines[0].get_xdata() for one in marks] == [[pytest.approx(100 * (0.6 - scores("cola")[0][0]))]]
    assert [one.has_xerr for one in marks] == [False]
    assert [text.get_text() for text in rte.texts] == ["no common seed"]
    told = picture.drawing.get_suptitle().replace("\n", " ")
    assert "Without an interval: one seed, or" in told
    assert "(IA)3 on CoLA (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}1)" in told


def test_the_figure_says_which_row_did_not_run_a_task() -> None:
    never = [record(config("cola", RosaConfig(every=0), seed=seed), 0.1 + 0.2 * seed) for seed in SEEDS]
    (picture,), _ = forest(compare(study(("cola", "rte")) + never, "glue"))
    labels = [label.get_text() for label in picture.drawing.axes[0].get_yticklabels()]
    noted = {
        axes.get_title(): [labels[int(text.get_position()[1])] for text in axes.texts if text.get_text() == "not run"]
        for axes in picture.drawing.axes
    }
    assert noted == {"CoLA": [], "RTE": ["ROSA r=8, never resampled"]}
