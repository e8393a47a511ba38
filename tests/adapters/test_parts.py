"""Models whose parts have a method each, attached one by one, under one callback."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from rosa.adapters import adapters, attach, attachment, merge, resample
from rosa.adapters.base import Adapter
from rosa.adapters.callback import ResampleCallback
from rosa.adapters.support import by_layer, chosen
from rosa.adapters.support_callback import SupportCallback
from rosa.config import LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.names import EVENT
from rosa.utils.seeding import generator


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention[1](self.attention[0](x).tanh())


class Towers(nn.Module):
    """Two encoders of a pair, as retrieval models have them."""

    def __init__(self, left: MethodConfig, right: MethodConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = Tower(), Tower()
        attach(self.left, left, generator=generator(0, "left"), verbose=False)
        attach(self.right, right, generator=generator(0, "right"), verbose=False)

    def forward(self, x: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"loss": (self.left(x) * self.right(x)).sum(-1).mean()}


def trained(model: nn.Module, callback: Any, folder: Path, steps: int = 5) -> Trainer:
    arguments = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no",
        max_steps=steps, per_device_train_batch_size=2, remove_unused_columns=False,
    )  # fmt: skip
    stream = torch.Generator().manual_seed(0)
    data = [{"x": torch.randn(8, generator=stream)} for _ in range(8)]
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[callback])
    trainer.train()
    return trainer


def steps_of(trainer: Trainer) -> list[int]:
    return [entry["step"] for entry in trainer.state.log_history if EVENT in entry]


@pytest.mark.parametrize("first", ["rosa", "lora"])
def test_a_part_with_lora_beside_one_with_rosa(first: str, tmp_path: Path) -> None:
    configs: list[MethodConfig] = [RosaConfig(rank=2, every=2, unit="step", rewarm_steps=1), LoraConfig(rank=2)]
    model = Towers(*(configs if first == "rosa" else configs[::-1]))
    trainer = trained(model, ResampleCallback(), tmp_path)
    assert steps_of(trainer) == [2, 4]
    with torch.no_grad():
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
        expected = model(x)["loss"]
        assert torch.allclose(merge(model)(x)["loss"], expected, rtol=1e-5)
    assert attachment(model) is None
    assert not any(isinstance(module, Adapter) for module in model.modules())


def test_parts_that_differ_in_when_they_resample_are_refused_unless_the_callback_says(tmp_path: Path) -> None:
    def model() -> Towers:
        return Towers(*(RosaConfig(rank=2, every=every, unit="step") for every in (2, 3)))

    with pytest.raises(AdapterError, match=r"parts with every=2 and with every=3.*equal values"):
        trained(model(), ResampleCallback(), tmp_path)
    assert steps_of(trained(model(), ResampleCallback(every=3), tmp_path)) == [3]


WAYS: dict[str, dict[str, Any]] = {
    "one-sided": {},
    "symmetric": {"split": "symmetric"},
    "orthogonal": {"factorization": "random_orthogonal"},
}


def way_of(adapter: Any) -> str:
    """What the factors show of how they were made: whether B's rows and A's columns are orthogonal or orthonormal."""
    rows, columns = (adapter.B @ adapter.B.T).detach(), (adapter.A.T @ adapter.A).detach()
    if not torch.allclose(columns, columns.diag().diag(), atol=1e-5):
        return "orthogonal"
    return "one-sided" if torch.allclose(rows.diag(), torch.ones(2), atol=1e-5) else "symmetric"


@pytest.mark.parametrize("right", WAYS)
@pytest.mark.parametrize("left", WAYS)
def test_each_part_is_factorized_in_its_own_way(left: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, layers of equal shape are factorized in one batch, but not with those of another factorization."""
    model = Towers(RosaConfig(rank=2, **WAYS[left]), RosaConfig(rank=2, **WAYS[right]))
    monkeypatch.setattr("rosa.adapters.rosa.layers_at_once", lambda *_: 4)
    resample(model, generator=generator(0, "resample"))
    assert [way_of(adapter) for _, adapter in adapters(model)] == [left, left, right, right]


def test_a_part_with_a_sparse_part_beside_one_with_lora(tmp_path: Path) -> None:
    robust = RobustConfig(rank=2, density=0.1, schedule="warmup", warmup_steps=1, lr_sparse=1)
    model = Towers(LoraConfig(rank=2), robust)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trained(model, SupportCallback(), tmp_path)
    assert chosen(model)
    assert list(by_layer(model)) == ["attention.0", "attention.1"]  # of the part that has them
