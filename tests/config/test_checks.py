"""Checks of single values, beside what other libraries accept."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
from huggingface_hub.utils import HFValidationError, validate_repo_id

from rosa.config import RobustConfig, RosaConfig
from rosa.config.checks import hub_name
from rosa.errors import ConfigError


def test_names_on_the_hub_are_those_that_its_client_accepts() -> None:
    def theirs(name: str) -> bool:
        try:
            validate_repo_id(name)
        except HFValidationError:
            return False
        return True

    def ours(name: str) -> bool:
        try:
            hub_name("model.path", name, "instead")
        except ConfigError:
            return False
        return True

    short = ["".join(parts) for count in range(5) for parts in itertools.product("a_-./", repeat=count)]
    names = [*short, "a" * 96, "a" * 97, "owner/model.git", "FacebookAI/roberta-base", "a b", "C:\\model"]
    assert [name for name in names if ours(name) != theirs(name)] == []
    assert ours("a/b")


@pytest.mark.parametrize("whole", [np.int64(4), np.int8(4), np.uint16(4)])
def test_numbers_of_other_libraries_are_numbers(whole: Any) -> None:
    """As they come out of a grid or a table; a record holds Python's own."""
    config = RobustConfig(
        rank=whole, rank_pattern={"*query": whole, "*key": np.float64(0.5)}, warmup_steps=whole, alpha=np.float32(8),
        density=np.float32(0.25), density_pattern={"*key": np.float32(0.5)},
    )  # fmt: skip
    expected = RobustConfig(
        rank=4, rank_pattern={"*query": 4, "*key": 0.5}, warmup_steps=4, alpha=8.0, density=0.25,
        density_pattern={"*key": 0.5},
    )  # fmt: skip
    assert config == expected
    assert json.dumps(dataclasses.asdict(config)) == json.dumps(dataclasses.asdict(expected))


@pytest.mark.parametrize("wrong", [np.int64(0), np.float64(4), np.True_, True, "4", None, np.array([4])])
def test_what_is_no_rank_is_refused_whatever_its_type(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="method.rank=.*: expected a whole number of at least 1, or a share"):
        RosaConfig(rank=wrong)


def test_a_tuple_names_heads_as_a_list_does() -> None:
    assert RosaConfig(head=("classifier",)) == RosaConfig(head=["classifier"])
    for wrong in ((), "classifier", ("",), {"classifier"}, None):
        with pytest.raises(ConfigError, match="method.head=.*: expected train, freeze, or a list of at least one name"):
            RosaConfig(head=wrong)
