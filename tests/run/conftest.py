"""Shared pieces of the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import RobertaConfig

from tests.conftest import Composer

SHAPE = (
    "data.train_size=98", "data.evaluation_size=37", "train.batch_size=12", "train.evaluation_batch_size=8",
    "train.epochs=2", "train.log_steps=1", "train.threads=1",
)  # fmt: skip
"""Batches of an epoch: eight of 12 examples and one of two, so that the third of three processes has no part of it. The
last batch of an evaluation is not full either."""


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR takes ten seconds of Java a run, and has tests of its own."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def undropped(composed: Composer, tiny_model: Path, tmp_path: Path) -> Composer:
    """As ``composed``, of a model without dropout, whose pattern depends on how a batch is shared."""
    folder = tmp_path / "undropped"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "config.json").unlink()
    shape = RobertaConfig.from_pretrained(tiny_model)
    shape.classifier_dropout = 0.0
    shape.save_pretrained(folder)
    return lambda *overrides: composed(*SHAPE, f"model.path={folder}", *overrides)
