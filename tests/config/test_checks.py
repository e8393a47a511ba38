"""Checks of single values, beside what other libraries accept."""

from __future__ import annotations

import itertools

from huggingface_hub.utils import HFValidationError, validate_repo_id

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
