"""Models of a stand-in hub: the commit whose weights are loaded, and the messages of refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from tests import stand_in_hub

OLDER, NEWER, ABSENT = "a" * 40, "b" * 40, "c" * 40
LOAD = """
from rosa import models
from rosa.config import ModelConfig, TaskConfig

task = TaskConfig(name="cola", texts=["sentence"], labels=["unacceptable", "acceptable"], metrics=["accuracy"],
                  headline="accuracy")

def answer(revision):
    config = ModelConfig(name="tiny", source="hub", path="someone/tiny", revision=revision)
    model, _, facts = models.load(config, task, seed=0)
    return [model.roberta.embeddings.LayerNorm.weight[0].item(), facts["revision"]]
"""


def commit(folder: Path, scale: float) -> dict[str, bytes]:
    """The files of a saved model, with all weights times this."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    weights = {name: weight * scale for name, weight in load_file(folder / "model.safetensors").items()}
    return files | {"model.safetensors": save(weights, {"format": "pt"})}


def asking(*revisions: str) -> list[dict[str, str]]:
    return [{"revision": revision} for revision in revisions]


@pytest.mark.slow
def test_a_pinned_model_is_of_its_commit_and_no_other(tiny_model: Path, tmp_path: Path) -> None:
    refused = []
    for behaviour in ("fail=gated", "fail=missing", "fail=throttled", f"commit={NEWER}"):
        refused += [{"hub": behaviour}, *asking(ABSENT)]
    steps = [*asking(OLDER, NEWER, "", ABSENT), *refused]
    with stand_in_hub.running(
        {"someone/tiny": {OLDER: commit(tiny_model, 1.0), NEWER: commit(tiny_model, 2.0)}}
    ) as hub:
        older, newer, latest, *messages = stand_in_hub.ask(LOAD, hub.address, tmp_path, steps)
    assert (older, newer, latest) == ([1.0, OLDER], [2.0, NEWER], [2.0, NEWER])
    parts = ("has no such revision", "gated", "has no such repository", "too many requests", f"returned commit {NEWER}")
    for part, message in zip(parts, messages, strict=True):
        assert "someone/tiny" in message
        assert part in message
        assert len(message) < 600

    nowhere = "http://127.0.0.1:9"  # the discard port: nothing listens
    older, newer, absent = stand_in_hub.ask(LOAD, nowhere, tmp_path, asking(OLDER, NEWER, ABSENT))
    assert (older, newer) == ([1.0, OLDER], [2.0, NEWER])
    assert "not in the hub's cache" in absent
