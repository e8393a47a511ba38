"""The note of a pretrained model's folder, which spares generating the text that it was pretrained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa.mini import text as mini_text
from rosa.mini.pretraining import cache, roberta
from rosa.run.mini_model import located
from rosa.utils.names import PRETRAINING
from tests.composing import compose_config


def whole(folder: Path) -> Path:
    """Write a model's folder, with empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", PRETRAINING):
        (folder / name).touch()
    return folder


def test_a_folder_is_found_again_by_its_recipe_alone(tmp_path: Path) -> None:
    asked: list[str] = []

    def find(name: str) -> Path:
        asked.append(name)
        return whole(tmp_path / name)

    for _ in range(2):
        assert cache.noted([1, "a"], tmp_path, lambda: find("first")) == tmp_path / "first"
        assert cache.noted([1, "b"], tmp_path, lambda: find("second")) == tmp_path / "second"
    assert asked == ["first", "second"]
    (tmp_path / "first" / "model.safetensors").unlink()
    cache.noted([1, "a"], tmp_path, lambda: find("first"))
    assert asked[2:] == ["first"]


@pytest.mark.parametrize("content", [b"", b"..\n", b"../other\n", b"\xff\n", b"missing\n"])
def test_a_note_that_names_no_folder_of_the_cache_is_written_anew(content: bytes, tmp_path: Path) -> None:
    whole(tmp_path / "other")
    folder = whole(tmp_path / "cache" / "model")
    whole(tmp_path)  # what ".." names
    note = tmp_path / "cache" / f"{cache.key('recipe')}.folder"
    note.write_bytes(content)
    assert cache.noted("recipe", tmp_path / "cache", lambda: folder) == folder
    assert note.read_text() == "model\n"


def test_a_cache_that_takes_no_note_serves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / f"{cache.key('recipe')}.folder").mkdir()
    assert cache.noted("recipe", tmp_path, lambda: whole(tmp_path / "model")) == tmp_path / "model"


def test_the_text_is_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And anew for other settings, or another generator, from which the model may be another one."""
    generated: list[tuple[int, int]] = []
    monkeypatch.setattr(mini_text, "corpus", lambda sentences, seed: generated.append((sentences, seed)))
    monkeypatch.setattr(roberta, "cached_roberta", lambda *_: whole(tmp_path / "model"))
    words = [f"cache_dir={tmp_path}", "model=mini-roberta", "model.mini.sentences=77"]
    for _ in range(2):
        assert located(compose_config(*words)).path == str(tmp_path / "model")
    assert len(generated) == 1
    located(compose_config(*words, "model.mini.seed=5"))
    assert len(generated) == 2
    monkeypatch.setattr(mini_text, "code", lambda: "changed")
    located(compose_config(*words))
    assert len(generated) == 3
