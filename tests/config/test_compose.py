"""Composition of configurations: Hydra's store of schemas is neither copied nor changed by it."""

from __future__ import annotations

import copy

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from rosa.config import register
from tests.conftest import ROOT


def test_the_store_is_not_copied_and_a_composition_does_not_change_it() -> None:
    register()
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        first = compose("config", overrides=["task=cola", "method=rosa"])
        before = copy.deepcopy(first)
        first.method.targets.append("changed")
        first.train.lr = 7.0
        assert compose("config", overrides=["task=cola", "method=rosa"]) == before
