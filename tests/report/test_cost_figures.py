"""Figures of quality against cost, the heat map and the bars: their numbers, and distinguishable looks."""

from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from rosa.config import FullConfig, LoraConfig, RosaConfig
from rosa.report.figures.costs import costs as cost_bars
from rosa.report.figures.rank_frequency import _ink, heat_maps
from rosa.report.figures.style import Picture
from rosa.report.figures.tradeoff import _make_readable, tradeoffs
from rosa.report.grouping import compare
from rosa.report.looks import MOST
from rosa.utils.formatting import MIB
from tests.report.synthetic_records import config, costs, record
from tests.report.test_costs import found as four_methods
from tests.report.test_rank_frequency import PERIODS, RANKS, crossed, score
from tests.tiers import slow_but


def lines(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.table().decode())))


def by_rank(method: type, rank: int, seed: int, **options: Any) -> dict[str, Any]:
    made = record(config("cola", method(rank=rank, **options), seed=seed), rank / 10 + seed / 100)
    made["params"] = {"trainable": 1000 * rank, "head": 10, "total": 10**6}
    return made | {"costs": costs(0.01) | {"host_bytes": (rank + seed) * 2**20}}


def test_points_are_the_means_of_what_runs_cost_and_scored():
    found = [by_rank(method, rank, seed) for method in (LoraConfig, RosaConfig) for rank in (1, 8) for seed in (0, 1)]
    (picture,), left_out = tradeoffs(compare(found, "glue"))
    unmeasured = ["Checkpoint (MiB)", "Memory above baseline (MiB)"]
    assert left_out == [f"no finished run has measured: {name}" for name in unmeasured]
    assert picture.name == "glue/mini-roberta-quality"
    assert {line["quantity"] for line in lines(picture)} == {
        "Trainable parameters",
        "Training state (MiB)",
        "Step (ms)",
    }
    for line in lines(picture):
        if line["quantity"] != "Trainable parameters":
            continue
        rank = 1 if "r=1" in line["row"] else 8
        assert line["series"] in ("LoRA", "ROSA, every 2 epochs")
        assert float(line["cost"]) == 1000 * rank + 10
        assert float(line["mean"]) == pytest.approx(np.mean([rank / 10, rank / 10 + 0.01]))
    (front,) = [one for one in picture.drawing.axes[0].get_lines() if one.get_linestyle() == ":"]
    assert list(front.get_xdata()) == [1010, 8010, 8010], "rank 8 scores best, and both methods the same"
    assert list(front.get_ydata()) == pytest.approx([10.5, 80.5, 80.5])
    for run in found:
        run["costs"]["device_bytes"] = run["costs"]["host_bytes"]
    (picture,), left_out = tradeoffs(compare(found, "glue"))
    assert left_out == ["no finished run has measured: Checkpoint (MiB)"]
    memory = [float(line["cost"]) for line in lines(picture) if line["quantity"] == "Peak memory (MiB)"]
    assert sorted(memory) == [1.5, 1.5, 8.5, 8.5]


def test_bytes_and_a_processs_memory_above_its_baseline_are_costs_too():
    """A process's whole peak is not; of a device it is, and then it stands for the memory."""
    found = [by_rank(method, rank, seed) for method in (LoraConfig, RosaConfig) for rank in (1, 8) for seed in (0, 1)]
    for run in found:
        rank = run["config"]["method"]["rank"]
        run["costs"] |= {"checkpoint_bytes": 20 * rank * MIB, "memory_max_bytes": 3 * rank * MIB}
    (picture,), left_out = tradeoffs(compare(found, "glue"))
    assert not left_out
    shown = {}
    for line in lines(picture):
        shown.setdefault(line["quantity"], set()).add(float(line["cost"]))
    assert shown["Checkpoint (MiB)"] == {20, 160}
    assert shown["Memory above baseline (MiB)"] == {3, 24}
    assert "Peak memory (MiB)" not in shown
    assert len(picture.drawing.axes) == len(shown) == 5
    for run in found:
        run["costs"]["device_bytes"] = run["costs"]["host_bytes"]
    (picture,), _ = tradeoffs(compare(found, "glue"))
    assert {line["quantity"] for line in lines(picture)} == set(shown) - {"Memory above baseline (MiB)"} | {
        "Peak memory (MiB)"
    }


@pytest.mark.parametrize(("costs_", "scale"), [([1.0, 1.4], "linear"), ([1.0, 1.6], "log"), ([0.0, 5.0], "linear")])
def test_an_axis_is_logarithmic_where_costs_are_apart(costs_: list[float], scale: str):
    axes = Figure().subplots()
    axes.plot(costs_, costs_)
    _make_readable(axes, str, costs_, 1.0)
    assert axes.get_xscale() == scale


@pytest.mark.parametrize(("inches", "labels"), [(9.0, "1 2 5 10 20"), (1.3, "1 3 10"), (0.1, "1 10")])
def test_a_narrow_axis_has_fewer_labels(inches: float, labels: str):
    axes = Figure().subplots()
    axes.plot([1, 25], [0, 1])
    _make_readable(axes, lambda value: f"{value:.0f} MiB", [1, 25], inches)
    lowest, highest = axes.get_xlim()
    assert [value for value in axes.get_xticks() if lowest <= value <= highest] == [float(x) for x in labels.split()]


def test_a_panel_without_a_measured_cost_says_so():
    found = [by_rank(method, 8, seed) for method in (LoraConfig, RosaConfig) for seed in (0, 1)]
    other = [record(config("rte", method(rank=8), seed=0), 0.5) for method in (LoraConfig, RosaConfig)]
    for run in found:
        run["costs"]["checkpoint_bytes"] = MIB
    (picture,), _ = tradeoffs(compare([*found, *(run | {"costs": costs(0.01)} for run in other)], "glue"))
    said = [text.get_text() for axes in picture.drawing.axes for text in axes.texts]
    assert said.count("not measured") == 1
    caption = " ".join(picture.drawing.get_suptitle().split())
    assert "Rows whose runs did not record a cost have no point at it." in caption


def test_of_more_series_than_looks_only_those_that_say_something_are_drawn():
    found = [by_rank(LoraConfig, rank, 0) for rank in (1, 8)] + [by_rank(RosaConfig, rank, 0) for rank in (1, 8)]
    found += [by_rank(RosaConfig, 8, 0, every=50 + number) for number in range(MOST)]
    found += [record(config("cola", FullConfig()), 0.5) | {"costs": costs(0.01)}]
    pictures, left_out = tradeoffs(compare(found, "glue"))
    assert {line["series"] for line in lines(pictures[0])} == {"Full", "LoRA", "ROSA, every 2 epochs"}
    assert len(left_out) == MOST + 2
    assert left_out[-1] == "no finished run has measured: Memory above baseline (MiB)"
    assert left_out[0] == "ROSA r=8, every 50 epochs: one rank alone (see the ablation's figure)"


def test_what_was_not_measured_is_said():
    bare = [record(config("cola", method), 0.5, params={}) for method in (FullConfig(), LoraConfig())]
    assert tradeoffs(compare(bare, "glue")) == (
        [],
        [
            f"no finished run has measured: {name}"
            for name in (
                "Trainable parameters",
                "Checkpoint (MiB)",
                "Training state (MiB)",
                "Step (ms)",
                "Memory above baseline (MiB)",
            )
        ],
    )
    assert cost_bars(compare(bare, "glue")) == ([], ["no finished run has measured its costs"])


def test_the_heat_map_has_every_rank_and_period_and_lora():
    (picture,), left_out = heat_maps(compare(crossed(), "glue"))
    assert not left_out
    names = {0: "never", 1: "every 1 epoch", 2: "every 2 epochs"}
    shown = {(int(line["rank"]), line["resampling"]): float(line["mean"]) for line in lines(picture)}
    expected = {
        (rank, names[every]): np.mean([score(rank, every, seed) for seed in (0, 1)])
        for rank, every in itertools.product(RANKS, PERIODS)
    } | {(rank, "LoRA"): 0.2 for rank in RANKS}
    assert shown == pytest.approx(expected)
    assert heat_maps(compare(four_methods(), "glue")) == (
        [],
        ["no two ranks were run with the same two times between resamples"],
    )


def test_numbers_on_the_heat_map_are_black_on_light_and_white_on_dark():
    inks = [_ink(share) for share in np.linspace(0, 1, 11)]
    assert inks == sorted(inks, reverse=True)
    assert (inks[0], inks[-1]) == ("white", "black")


def test_the_bars_show_means_and_ratios_to_lora():
    (picture,), _ = cost_bars(compare(four_methods(), "glue"))
    found = {(x["task"], x["row"], x["quantity"]): x for x in lines(picture)}
    bases = []
    for task in {task for task, _, _ in found}:
        line = found[task, "Full", "Step (ms)"]
        base = float(line["lowest"]) / 2000
        steps = [2000 * base * (1 + seed / 10) for seed in range(3)]
        assert [float(line[key]) for key in ("mean", "highest")] == pytest.approx([np.mean(steps), max(steps)])
        assert float(line["ratio_to_lora"]) == pytest.approx(2)
        bases.append(base)
    assert sorted(bases) == pytest.approx([0.01, 0.04]), "tasks of other batches are not averaged"


@pytest.mark.parametrize("draw", slow_but([heat_maps], [tradeoffs, heat_maps, cost_bars]))
def test_the_same_records_give_the_same_bytes(draw):
    found = [one | {"costs": costs(0.01)} for one in crossed(with_lora=False)]
    outputs = []
    for _ in range(2):
        pictures, _ = draw(compare(found, "glue"))
        outputs.append((pictures[0].table(), pictures[0].image("svg")))
        found.reverse()
    assert outputs[0] == outputs[1]
