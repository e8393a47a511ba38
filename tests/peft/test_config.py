"""The configuration of ROSA in PEFT: its names, options and checks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import peft
import pytest

import rosa.config
from rosa.errors import ConfigError
from rosa.peft import RobustConfig, RosaConfig
from rosa.peft.config import OF_ATTACH, PEFT_NAMES


@pytest.mark.parametrize(("kind", "method"), [(RosaConfig, rosa.config.RosaConfig),
                                              (RobustConfig, rosa.config.RobustConfig)])  # fmt: skip
def test_every_option_of_the_method_is_there_with_its_default(kind, method):
    here = {one.name: one for one in dataclasses.fields(kind)}
    there = {one.name: one for one in dataclasses.fields(method) if one.name not in OF_ATTACH}
    shared = kind.option_names()
    assert set(shared) == set(there)
    assert {name: here[shared[name]].default for name in there} == {name: one.default for name, one in there.items()}
    pefts = {one.name for one in dataclasses.fields(peft.LoraConfig)}
    assert {name for name in shared.values() if name in pefts} == set(PEFT_NAMES.values()) & set(here)


def test_options_reach_the_method():
    method = RosaConfig(r=0.25, every=3, unit="step", sampling="top", rewarm_steps=1).method()
    assert (method.rank, method.every, method.unit, method.sampling, method.rewarm_steps) == (0.25, 3, "step", "top", 1)
    robust = RobustConfig(r=4, lora_alpha=8.0, lora_dropout=0.5, density=0.1, schedule="warmup", restart=True).method()
    assert (robust.rank, robust.alpha, robust.dropout, robust.density) == (4, 8.0, 0.5, 0.1)
    assert (robust.schedule, robust.restart) == ("warmup", True)


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


@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": 5}, "target_modules=5: expected a list of names, or one regular expression"),
        ({"target_modules": [1]}, r"target_modules=\[1\]: expected a list of names"),
        ({"target_modules": "(q"}, r"target_modules='\(q' is not a regular expression: missing \)"),
        ({"exclude_modules": 5}, "exclude_modules=5: expected a list of names"),
        ({"exclude_modules": "["}, r"exclude_modules='\[' is not a regular expression"),
        ({"modules_to_save": "lm_head"}, "modules_to_save='lm_head': expected None or a list of names"),
        ({"modules_to_save": [None]}, r"modules_to_save=\[None\]: expected None or a list of names"),
        ({"layers_to_transform": "1"}, "layers_to_transform='1': expected the index of a layer"),
        ({"layers_to_transform": [0, -1]}, r"layers_to_transform=\[0, -1\]: expected the index of a layer"),
        ({"layers_to_transform": True}, "layers_to_transform=True: expected the index of a layer"),
        ({"layers_to_transform": 1, "layers_pattern": 3}, "layers_pattern=3: expected the name of a module list"),
        ({"rank_pattern": None}, "^rank_pattern=None: expected a dictionary whose keys are patterns"),
        ({"rank_pattern": [("q", 1)]}, r"^rank_pattern=\[\('q', 1\)\]: expected a dictionary"),
        ({"rank_pattern": {1: 2}}, "^rank_pattern={1: 2}: expected a dictionary whose keys are patterns"),
        ({"rank_pattern": {"(": 2}}, r"^rank_pattern: '\(' is not a regular expression"),
        ({"density_pattern": None}, "^density_pattern=None: expected a dictionary"),
        ({"density_pattern": {"(": 0.1}}, r"^density_pattern: '\(' is not a regular expression"),
    ],
)
def test_a_value_of_another_type_is_refused(kind, options, message):
    if options.keys() <= {one.name for one in dataclasses.fields(kind)}:
        with pytest.raises(ConfigError, match=message):
            kind(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "^r=0: expected a whole number of at least 1"),
        ({"lora_alpha": -1}, "^lora_alpha=-1: expected"),
        ({"lora_dropout": 1.0}, r"^lora_dropout=1.0: expected a number in \[0, 1\)"),
        ({"density": 1.5}, "^density=1.5: expected a share of the weight's entries"),
        ({"density_pattern": {"q_proj": 0}}, r"density_pattern\['q_proj'\]=0: expected a share"),
        ({"rank_pattern": {"q_proj": -1}}, r"rank_pattern\['q_proj'\]=-1: expected"),
        ({"schedule": "sometimes"}, "^schedule='sometimes': expected one of joint, warmup"),
        ({"restart": True}, "^restart=True: expected false: only schedule=warmup starts over"),
        ({"collect_steps": 0}, "^collect_steps=0: expected"),
        ({"schedule": "warmup", "support": "a"}, "^support='a': expected none: schedule=warmup chooses one"),
        ({"bias": "rosa_only"}, "bias='rosa_only': expected one of none, all, robust_only"),
    ],
)
def test_a_bad_value_of_robust_adaptation_is_refused_under_pefts_name(options, message):
    with pytest.raises(ConfigError, match=message):
        RobustConfig(**options)


@pytest.mark.parametrize(("kind", "option"), [(RosaConfig, "lora_alpha"), (RobustConfig, "every"),
                                              (RobustConfig, "alpha"), (RosaConfig, "rank")])  # fmt: skip
def test_an_unknown_option_is_refused(kind, option):
    with pytest.raises(TypeError, match=option):
        kind(**{option: 16})


@pytest.mark.parametrize(
    "asked",
    [
        RosaConfig(r=4, every=0, target_modules=["q", "v"], modules_to_save=["score"], task_type="SEQ_CLS"),
        RobustConfig(r=4, density=0.1, density_pattern={"q": 0.2}, target_modules="all-linear", schedule="warmup"),
    ],
)
def test_a_saved_configuration_comes_back(asked, tmp_path):
    asked.save_pretrained(tmp_path)
    name = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    assert name == {RosaConfig: "ROSA", RobustConfig: "ROBUST"}[type(asked)]
    assert peft.PeftConfig.from_pretrained(str(tmp_path)) == asked


@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
def test_numbers_of_numpy_are_saved_as_pythons(kind, tmp_path):
    default = kind(target_modules=["q"])
    given = {"layers_to_transform": [1, 2], "rank_pattern": {"q": 2}}
    if kind is RobustConfig:
        given["density_pattern"] = {"q": 0.5}
    numbers = {name: value for name, value in vars(default).items() if type(value) in (int, float)}
    options = {**numbers, **given}
    asked = kind(target_modules=["q"], **{name: in_numpy(value) for name, value in options.items()})
    asked.save_pretrained(tmp_path)
    assert peft.PeftConfig.from_pretrained(str(tmp_path)) == kind(target_modules=["q"], **options)


def in_numpy(value):
    if isinstance(value, dict):
        return {key: in_numpy(one) for key, one in value.items()}
    if isinstance(value, list):
        return [in_numpy(one) for one in value]
    return np.int64(value) if isinstance(value, int) else np.float64(value)


def test_the_path_of_a_support_is_not_saved(tmp_path):
    RobustConfig(support="here/support.safetensors").save_pretrained(tmp_path)
    assert peft.PeftConfig.from_pretrained(str(tmp_path)).support == ""


def test_densities_follow_pefts_patterns():
    config = RobustConfig(density=0.1, density_pattern={"layers.1.*q_proj": 0.2})
    assert config.density_of("model.layers.1.self_attn.q_proj") == 0.2
    assert config.density_of("model.layers.0.self_attn.q_proj") == 0.1


@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
def test_ranks_follow_pefts_patterns(kind):
    config = kind(r=8, rank_pattern={"layers.1.*q_proj": 2, "^model.layers.0.v_proj": 3})
    assert config.rank_of("model.layers.1.self_attn.q_proj") == 2
    assert config.rank_of("model.layers.0.v_proj") == 3
    assert config.rank_of("other.model.layers.0.v_proj") == 8
    assert config.rank_of("model.layers.0.q_proj") == 8
