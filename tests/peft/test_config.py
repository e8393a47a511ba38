"""The configuration of ROSA in PEFT: its names, options and checks."""

from __future__ import annotations

import dataclasses
import json

import peft
import pytest

import rosa.config
from rosa.errors import ConfigError
from rosa.peft import RosaConfig
from rosa.peft.config import OURS


def test_every_option_of_the_method_is_there_with_its_default():
    here = {one.name: one for one in dataclasses.fields(RosaConfig)}
    of_attach = {"name", "head", "targets", "rank", "rank_pattern"}  # PEFT has names of its own for these
    there = {one.name: one for one in dataclasses.fields(rosa.config.RosaConfig) if one.name not in of_attach}
    assert set(OURS) == set(there)
    assert {name: here[name].default for name in there} == {name: one.default for name, one in there.items()}
    method = RosaConfig(r=0.25, every=3, unit="step", sampling="top", rewarm_steps=1).method()
    assert (method.rank, method.every, method.unit, method.sampling, method.rewarm_steps) == (0.25, 3, "step", "top", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r=0: expected a whole number of at least 1"),
        ({"r": 1.5}, "r=1.5: expected"),
        ({"rank_pattern": {"q_proj": -1}}, r"rank_pattern\['q_proj'\]=-1: expected"),
        ({"every": -1}, "^every=-1: expected"),
        ({"unit": "batch"}, "^unit='batch': expected"),
        ({"sampling": "best"}, "^sampling='best': expected"),
        ({"factorization": "random_add", "sampling": "top"}, "^sampling='top': expected"),
        ({"bias": "lora_only"}, "bias='lora_only': expected one of none, all, rosa_only"),
        ({"target_modules": "q.*", "layers_to_transform": [1]}, r"layers_to_transform=\[1\]: expected None"),
        ({"target_modules": ["q"], "layers_pattern": "h"}, "layers_pattern='h': expected layers_to_transform"),
        ({"task_type": "POETRY"}, "Invalid task type: 'POETRY'"),
    ],
)
def test_a_bad_value_is_refused_under_pefts_name(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        RosaConfig(**options)
    assert isinstance(caught.value, ConfigError) or "task_type" in options


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="lora_alpha"):
        RosaConfig(lora_alpha=16)


def test_a_saved_configuration_comes_back(tmp_path):
    asked = RosaConfig(r=4, every=0, target_modules=["q", "v"], modules_to_save=["score"], task_type="SEQ_CLS")
    asked.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "ROSA"
    assert peft.PeftConfig.from_pretrained(str(tmp_path)) == asked


def test_ranks_follow_pefts_patterns():
    config = RosaConfig(r=8, rank_pattern={"layers.1.*q_proj": 2, "^model.layers.0.v_proj": 3})
    assert config.rank_of("model.layers.1.self_attn.q_proj") == 2
    assert config.rank_of("model.layers.0.v_proj") == 3
    assert config.rank_of("other.model.layers.0.v_proj") == 8
    assert config.rank_of("model.layers.0.q_proj") == 8
