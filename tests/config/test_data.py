"""The group ``data``: which data a run draws."""

from __future__ import annotations

import dataclasses

import pytest

from rosa.config import DataConfig
from rosa.config.identity import identity_hash
from rosa.errors import ConfigError
from rosa.run import build
from tests.conftest import Composer


def test_generated_text_is_the_same_for_every_seed_unless_it_is_drawn_for_each(composed: Composer) -> None:
    def rows(*overrides: str) -> dict[str, str]:
        texts = build.read(composed("data.train_size=20", "data.evaluation_size=5", *overrides))
        assert texts is not None
        return {split: facts["sha256"] for split, facts in texts.facts["splits"].items()}

    assert rows("seed=0") == rows("seed=1") == rows("seed=0", "data.per_seed=true")
    assert rows("seed=1", "data.per_seed=true") == rows("seed=0", "data.seed=1")
    assert set(rows("seed=1", "data.per_seed=true").values()).isdisjoint(rows("seed=2", "data.per_seed=true").values())


def test_runs_of_one_identity_draw_different_data(composed: Composer) -> None:
    first, second = (composed("data.per_seed=true", f"seed={seed}", "data.seed=7") for seed in (0, 2))
    assert identity_hash(first) == identity_hash(second) != identity_hash(composed("data.seed=7"))
    assert [config.drawn_data.seed for config in (first, second)] == [7, 9]
    assert first.drawn_data == dataclasses.replace(first.data, per_seed=False)


@pytest.mark.parametrize("source", ["local", "teacher"])
def test_only_generated_text_is_drawn_for_each_seed(source: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.per_seed=True: expected false for data\.source={source}"):
        DataConfig(source=source, dir="somewhere" * (source == "local"), per_seed=True)
