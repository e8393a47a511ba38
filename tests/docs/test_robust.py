"""docs/robust.md: its loader turns the pretrained model into the fine-tuned one, and its settings exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rosa import export
from rosa.adapters import adapters, merge
from rosa.config import FullConfig, LoraConfig, RobustConfig, methods
from rosa.errors import ExportError
from tests.adapters.tiny import attach, attached, build, logits, perturb, relative_difference
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "robust.md").read_text(encoding="utf-8")


def loader() -> Any:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def load_sparse" in block)
    body = code[code.index("@torch.no_grad()") :].strip().splitlines()
    assert len(body) <= 12, "the loader of ten lines, its decorator and its docstring"
    space: dict[str, Any] = {}
    exec(code, space)
    return space["load_sparse"]


@pytest.mark.parametrize("schedule", ["joint", "sparse_only"])
@pytest.mark.parametrize("name", ["roberta", "gpt2", "llama"])
def test_the_loader_rebuilds_the_fine_tuned_model(name: str, schedule: str, tmp_path: Path) -> None:
    model = attached(name, RobustConfig(rank=4, density=0.05, schedule=schedule))
    perturb(model, size=0.3)
    size = export.to_sparse(model, tmp_path / "change")
    assert size == (tmp_path / "change" / "sparse.safetensors").stat().st_size
    plain: nn.Module = build(name)
    before = logits(plain, name)
    loader()(plain, tmp_path / "change" / "sparse.safetensors")
    expected = logits(merge(model), name)
    assert relative_difference(logits(plain, name), before) > 1e-2
    assert relative_difference(logits(plain, name), expected) <= 1e-5


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_a_bias_of_an_adapted_layer_that_a_user_trains_is_loaded_too(name: str, tmp_path: Path) -> None:
    model = attached(name, RobustConfig(rank=4, density=0.05))
    for _, adapter in adapters(model):
        adapter.base.bias.requires_grad_()
    perturb(model, size=0.3)
    export.to_sparse(model, tmp_path / "change")
    plain: nn.Module = build(name)
    loader()(plain, tmp_path / "change" / "sparse.safetensors")
    assert relative_difference(logits(plain, name), logits(merge(model), name)) <= 1e-5


@pytest.mark.parametrize("config", [LoraConfig(rank=4), FullConfig(), RobustConfig(rank=4, schedule="low_rank_only")])
def test_what_has_no_sparse_part_is_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"method={config.name} attached, without a chosen sparse part"):
        export.to_sparse(attached("roberta", config), tmp_path / "change")
    assert not (tmp_path / "change").exists()


def test_a_support_that_was_never_chosen_is_refused(tmp_path: Path) -> None:
    model = build("roberta")
    attach(model, RobustConfig(rank=4, density=0.05), verbose=False)
    with pytest.raises(ExportError, match="without a chosen sparse part"):
        export.to_sparse(model, tmp_path / "change")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = attached("roberta", RobustConfig(rank=4, density=0.05))
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if name.endswith("values"))[0] = float("nan")
    with pytest.raises(ExportError, match=r"not finite .*values"):
        export.to_sparse(model, tmp_path / "change")


def test_peft_is_refused_with_what_works() -> None:
    with pytest.raises(ExportError, match=r"full rank.*--format sparse.*--format merged"):
        export.refuse_sparse_part(RobustConfig())
    for config in (LoraConfig(), RobustConfig(schedule="low_rank_only")):
        export.refuse_sparse_part(config)


def test_every_option_is_explained() -> None:
    from dataclasses import fields

    options = {field.name for field in fields(RobustConfig)} - {"name", "head", "targets", "rank_pattern"}
    assert {option for option in options if f"`{option}`" not in PAGE} == set()
    assert "robust" in methods()
