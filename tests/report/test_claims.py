"""The page of claims: a verdict for each case, a tuned learning rate that fails on other seeds, and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rosa.config import LoraConfig, RosaConfig
from rosa.errors import ReportError
from rosa.records import find
from rosa.report.benchmarked import FILE, costs_claims, read
from rosa.report.claims import EXPERIMENT, ON_TEXTS, claims_table, page, rates_table, texts_table
from rosa.report.comparison import compare
from rosa.report.formatting import significant
from tests.conftest import ROOT
from tests.report.synthetic_records import TEXT_SCORES, config, record, written

TASKS = ("cola", "mrpc", "rte")
NOISE = (-0.002, 0.001, 0.001)


def study(ahead: dict[str, float]) -> list[dict[str, Any]]:
    """LoRA and ROSA on three tasks and three seeds; ROSA is ahead of LoRA by so much."""
    found = []
    for task in TASKS:
        for seed, noise in enumerate(NOISE):
            lora = config(task, LoraConfig(), seed=seed, experiment=EXPERIMENT)
            rosa = config(task, RosaConfig(every=1), seed=seed, experiment=EXPERIMENT)
            found += [record(lora, 0.6 + seed / 50), record(rosa, 0.6 + seed / 50 + ahead[task] + noise)]
    return found


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        ((0.1, 0.1, 0.0), "supported"),
        ((-0.1, -0.1, 0.1), "contradicted"),
        ((0.1, 0.0, 0.0), "open"),
        ((0.1, -0.1, 0.0), "open"),
    ],
)
def test_most_tasks_decide(ahead: tuple[float, ...], verdict: str) -> None:
    table = claims_table(compare(study(dict(zip(TASKS, ahead, strict=True))), EXPERIMENT))
    lines = {line[0].text: line[-1].text for line in table.rows}
    assert lines["ROSA is better than LoRA on most GLUE tasks"] == verdict
    assert lines["ROSA is better than (IA)3"] == "not run"


@pytest.mark.parametrize(("better", "worse", "verdict"), [(3, 0, "supported"), (0, 3, "contradicted"), (2, 2, "open")])
def test_most_scores_of_the_texts_decide(better: int, worse: int, verdict: str) -> None:
    runs = []
    for seed, noise in enumerate(NOISE):
        ahead = [0.1] * better + [-0.1] * worse + [0.0] * (5 - better - worse)
        scores = {name: mean + by + noise for (name, mean), by in zip(TEXT_SCORES.items(), ahead, strict=True)}
        # The perplexity, by which an epoch is selected, says the opposite.
        for method, perplexity, wrote in (
            (LoraConfig(), 3.0, TEXT_SCORES),
            (RosaConfig(every=1), 3.0 + better, scores),
        ):
            settings = config("e2e", method, seed=seed, experiment=ON_TEXTS)
            runs.append(written(record(settings), perplexity + noise, wrote))
    lines = {line[0].text: line[-1].text for line in texts_table(compare(runs, ON_TEXTS)).rows}
    assert lines["ROSA is better than LoRA"] == verdict
    assert lines["ROSA is better than (IA)3"] == "not run"


def test_a_rate_that_fails_on_another_seed_is_marked() -> None:
    runs = study(dict.fromkeys(TASKS, 0.0))
    for run in runs:
        run["tuning"] = {"experiment": "t", "task": "cola", "seed": 9, "grid": [{"lr": 1e-3, "score": 0.6}]}
    failing = next(r for r in runs if (r["identity"]["task"], r["identity"]["method"]) == ("mrpc", "lora"))
    failing["metrics"]["best"]["validation"]["accuracy"] = 0.29
    lines = {(line[0].text, line[1].text): line[-1].text for line in rates_table(compare(runs, EXPERIMENT)).rows}
    assert [line for line, holds in lines.items() if holds == "no"] == [("MRPC", "LoRA r=8")]
    assert len(lines) == 6


def test_a_rate_that_was_asked_for_by_hand_has_its_score_in_tuning() -> None:
    """Of two rates over the same seeds the better one is shown; its runs have no grid, those of the other have."""
    runs = study(dict.fromkeys(TASKS, 0.0))
    for run in runs:
        run["tuning"] = {"grid": [{"lr": 1e-3, "score": 0.6}, {"lr": 3e-4, "score": 0.55}]}
    for seed in range(len(NOISE)):
        runs.append(record(config("mrpc", LoraConfig(), seed=seed, experiment=EXPERIMENT, lr=3e-4), 0.7))
    (line,) = [
        row
        for row in rates_table(compare(runs, EXPERIMENT)).rows
        if row[1].text == "LoRA r=8" and row[0].text == "MRPC"
    ]
    assert [cell.text for cell in line[2:]] == ["3e-4", "55.0", "70.0, 70.0, 70.0", "yes"]


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    found = [run for name in (EXPERIMENT, ON_TEXTS) for run in find(ROOT / "results", name, "alone")[0]]
    costs = read(ROOT / "results" / "tables" / FILE)
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == page(found, costs)


HEADER = "benchmark,case,quantity,unit,value,lower_quartile,upper_quartile,samples\n"


@pytest.mark.parametrize(
    ("wide", "narrow", "verdict"), [(0.98, 0.8, "supported"), (1.2, 0.9, "open"), (1.2, 1.1, "contradicted")]
)
def test_the_claims_about_costs_are_those_of_the_benchmark(
    wide: float, narrow: float, verdict: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(
        HEADER
        + f"costs,wide: ROSA r=2,step relative to LoRA (peft) r=2,,{wide},0.7,1.25,20\n"
        + "costs,wide: LoRA (loralib) r=2,step relative to LoRA (peft) r=2,,0.1,0.1,0.1,20\n"
        + f"costs,narrow: ROSA r=8,step relative to LoRA (loralib) r=8,,{narrow},,,20\n"
        + "costs,wide: ROSA r=2,step,s,0.5,0.4,0.6,20\n"
        + "costs,wide: Full,step,s,2.0,1.9,2.1,20\n"
        + "costs,wide: ROSA r=2,checkpoint,byte,3000,,,\n"
        + "costs,wide: LoRA (loralib) r=2,checkpoint,byte,1000,,,\n"
        + "costs,,model,,minilm,,,\n"
    )
    table = costs_claims(read(tmp_path / FILE))
    steps, to_full, merged, checkpoints = ([cell.text for cell in line] for line in table.rows)
    assert steps[1:] == [f"wide r=2 {significant(wide)} (0.700–1.25); narrow r=8 {significant(narrow)}", verdict]
    assert to_full[1:] == ["wide r=2 0.250", "supported"]
    assert merged[1:] == ["—", "not run"]
    assert checkpoints[1:] == ["wide r=2 3.00", "contradicted"]


def test_a_broken_line_of_the_benchmark_is_named(tmp_path: Path) -> None:
    assert read(tmp_path / FILE) == []
    (tmp_path / FILE).write_text(HEADER + "costs,minilm: Full,step,s,1.5,,,20\ncosts,minilm: Full,step,s,fast,,,20\n")
    with pytest.raises(ReportError, match=r"costs\.csv, line 3: .*'fast'"):
        read(tmp_path / FILE)
