"""The miniature shows what it claims: full fine-tuning is above every baseline, at the sizes of the tables.

With the learning rates that the tables' grids chose, seed 0. It pretrains the mini models unless they are cached, and
takes minutes: only ``make test-long`` runs it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from rosa import records
from rosa.records import baselines as store
from rosa.run import baselines, run
from tests.composing import compose_config
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ROSA_MINIATURE" not in os.environ, reason="trains for minutes; make test-long runs it"),
]
LEARNABLE = ["mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb"]
"""All but WNLI, which nothing learns, as in GLUE."""
MARGIN = 3
"""Points by which full fine-tuning must exceed the best baseline."""


def trained(folder: Path, *overrides: str) -> tuple[records.Record, store.Baselines]:
    """The record of a run of full fine-tuning, and the baselines for its rows."""
    config = compose_config(
        "method=full", "seed=0", *overrides, f"results_dir={folder}", f"cache_dir={ROOT / '.cache'}"
    )
    run(config, "python scripts/train.py", progress=False)
    ((record,), _) = records.find(folder)
    return record, store.read(baselines.make(config, folder, "python scripts/make_baselines.py"))


@pytest.mark.parametrize("task", LEARNABLE)
def test_full_fine_tuning_of_a_mini_task_is_above_every_baseline(task: str, tmp_path: Path) -> None:
    record, found = trained(tmp_path, "experiment=glue_mini", f"task={task}", "train.lr=5e-4")
    metric = record["config"]["task"]["headline"]
    for split in record["config"]["task"]["evaluation"]:
        score = record["metrics"]["best"][split][metric]
        known = {form["name"]: form["scores"][split][metric] for form in found["forms"]}
        best = max(value for value in known.values() if value is not None and math.isfinite(value))
        assert 100 * (score - best) >= MARGIN, (split, score, known)


def test_full_fine_tuning_of_mini_e2e_is_above_retrieval(tmp_path: Path) -> None:
    record, found = trained(tmp_path, "experiment=e2e_mini", "train.lr=2e-3")
    (retrieval,) = found["forms"]
    assert retrieval["name"] == "retrieval"
    generation = record["generation"]
    for metric, value in retrieval["scores"]["test"].items():
        if value is not None:
            assert generation["scores"][metric] > value, (metric, generation["scores"], retrieval["scores"])
