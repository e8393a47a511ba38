"""Rank x resampling frequency: the rows that form a table, and the row in each cell."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from rosa.config import LoraConfig, RosaConfig
from rosa.report.grouping import compare
from rosa.report.study import Study
from rosa.report.tables.experiment import tables
from rosa.report.tables.markdown import markdown
from rosa.report.tables.rank_frequency import rank_maps
from tests.report.synthetic_records import config, record
from tests.report.test_tables import cells

RANKS, PERIODS = (1, 2, 8), (0, 1, 2)


def score(rank: int, every: int, seed: int) -> float:
    return 0.3 + rank / 50 - every / 100 + seed / 1000


def crossed(with_lora: bool = True) -> list[dict[str, Any]]:
    found = [
        record(config("cola", RosaConfig(rank=rank, every=every), seed=seed), score(rank, every, seed))
        for rank, every, seed in itertools.product(RANKS, PERIODS, (0, 1))
    ]
    lora = [record(config("cola", LoraConfig(rank=rank), seed=seed), 0.2) for rank in RANKS for seed in (0, 1)]
    return found + (lora if with_lora else [])


def test_each_cell_is_its_rank_and_period():
    results, grid = tables(Study(crossed(), "glue"))
    assert (results.name, grid.name) == ("glue", "glue-rank-frequency-1")
    table = cells(markdown(grid))
    assert list(table) == [f"r={rank}" for rank in RANKS]
    for rank, every in itertools.product(RANKS, PERIODS):
        values = 100 * np.array([score(rank, every, seed) for seed in (0, 1)])
        header = {0: "never", 1: "every 1 epoch", 2: "every 2 epochs"}[every]
        expected = f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
        assert table[f"r={rank}"][header].startswith(f"**{expected}**" if (rank, every) == (8, 0) else expected)
    assert list(table["r=1"]) == ["Rank", "every 1 epoch", "every 2 epochs", "never", "LoRA"]
    assert {row["LoRA"] for row in table.values()} == {"20.0 ± 0.0"}


def test_without_lora_there_is_no_column_of_it_and_a_hole_is_a_hole():
    found = [one for one in crossed(False) if one["config"]["method"]["every"] != 2 or one["identity"]["seed"]]
    found = [one for one in found if (one["config"]["method"]["rank"], one["config"]["method"]["every"]) != (1, 1)]
    table = cells(markdown(tables(Study(found, "glue"))[1]))
    assert "LoRA" not in table["r=1"]
    assert table["r=1"]["every 1 epoch"] == "—"
    assert table["r=1"]["every 2 epochs"].endswith("(n=1)")


def test_a_cross_is_no_grid_and_other_settings_make_grids_of_their_own():
    cross = [RosaConfig(rank=rank, every=1) for rank in RANKS] + [RosaConfig(rank=8, every=every) for every in PERIODS]
    found = [record(config("cola", method), 0.5) for method in {repr(method): method for method in cross}.values()]
    assert rank_maps(compare(found, "glue").rows) == []
    top = [
        record(config("cola", RosaConfig(rank=rank, every=every, sampling="top")), 0.5)
        for rank, every in itertools.product((1, 2), (0, 1))
    ]
    assert [grid.label for grid in rank_maps(compare(crossed() + top, "glue").rows)] == ["ROSA", "ROSA, top"]
    steps = [record(config("cola", RosaConfig(rank=rank, every=5, unit="step")), 0.5) for rank in RANKS]
    (grid,) = rank_maps(compare([*crossed(), *steps], "glue").rows)
    assert grid.periods == ((1, "epoch"), (2, "epoch"), (5, "step"), (0, ""))
