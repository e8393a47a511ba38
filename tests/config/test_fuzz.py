"""Configurations with arbitrary values are composed or refused with a ConfigError; no YAML tag runs code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rosa.config import from_hydra, register
from rosa.config.explain import explained
from rosa.errors import ConfigError, RosaError
from tests.conftest import ROOT

EXAMPLES = int(os.environ.get("ROSA_EXAMPLES", "25"))
"""Of a key and a value; each is composed, which takes Hydra a while. ``make test-long`` asks for more."""
fuzzed = settings(max_examples=EXAMPLES, deadline=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
KEYS = ["seed", "experiment_name", "train.lr", "train.weight_decay", "train.epochs", "train.batch_size", "train.warmup",
        "train.beta1", "train.epsilon", "train.max_grad_norm", "method.rank", "method.every", "method.targets",
        "data.dir",
        "data.limit", "model.path", "model.name", "task.labels", "task.metrics", "results_dir", "jobs"]  # fmt: skip
VALUES = ["1e999", "-1e999", "nan", ".inf", "null", "''", "[]", "{}", "-1", "0", "1.5", "true", "a/b", "..", "../../x",
          "'a\0b'", "'<script>'", "${seed}", "${oc.env:HOME}", "${nothing}", "[[1]]", "{a:1}", "9999999999999999999999",
          "'%s'", "'\\\\input{x}'", "é", "???", "1_0"]  # fmt: skip


def composed(words: list[str], conf: Path = ROOT / "conf") -> None:
    register()
    GlobalHydra.instance().clear()
    with explained(conf, words), initialize_config_dir(str(conf), version_base="1.3"):
        from_hydra(compose("config", overrides=words))


@pytest.mark.slow
@fuzzed
@given(key=st.sampled_from(KEYS), value=st.sampled_from(VALUES) | st.text(max_size=10))
@example(key="train.weight_decay", value="1e999")
@example(key="experiment_name", value="'..'")
def test_a_value(key: str, value: str) -> None:
    try:
        composed([f"{key}={value}"])
    except RosaError as error:
        assert isinstance(error, ConfigError)


@pytest.mark.spread
@pytest.mark.parametrize("key", ["weight_decay", "max_grad_norm", "epsilon", "lr", "warmup", "beta1"])
@pytest.mark.parametrize("value", ["1e999", ".inf", "nan", "-.inf"])
def test_numbers_are_finite(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        composed([f"train.{key}={value}"])


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "'a\0b'", "''", "'a\nb'"])
def test_an_experiment_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError):
        composed([f"experiment_name={name}"])


@pytest.mark.parametrize(
    "content",
    [
        "a: !!python/object/apply:os.mkdir ['{folder}']",
        "!!python/object/new:os.system ['mkdir {folder}']",
        "train: !!python/name:os.system",
        "a: &a [*a]",
        "{{{{",
        "\0",
        "a: b: c",
        "- 1\n- 2",
        "[" * 5000,
        "train: {lr: !!float x}",
    ],
)
def test_a_file_of_configuration(content: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    folder = tmp_path / "made"
    (tmp_path / "conf" / "train" / "hostile.yaml").write_text(content.replace("{folder}", str(folder)))
    with pytest.raises(ConfigError):
        composed(["train=hostile"], tmp_path / "conf")
    assert not folder.exists()
