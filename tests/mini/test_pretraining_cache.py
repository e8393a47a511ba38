"""The cache of pretrained models: complete or absent, and made once, also after a kill and with several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rosa.errors import ModelError, OutputError
from rosa.mini.pretraining.cache import cached, key, refuse_existing
from rosa.utils.names import PRETRAINING

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", PRETRAINING)


def make(folder: Path) -> None:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("{}")


def test_the_key_depends_on_every_part_and_on_no_order_of_names() -> None:
    assert key({"a": 1, "b": ["x"]}) == key({"b": ["x"], "a": 1})
    assert len({key({"a": 1}), key({"a": 2}), key({"b": 1}), key(["a", 1]), key({"a": "1"})}) == 5


@pytest.mark.parametrize("lost", FILES)
def test_a_folder_that_misses_a_file_is_made_again_and_a_whole_one_is_not(tmp_path: Path, lost: str) -> None:
    made: list[Path] = []

    def counted(folder: Path) -> None:
        made.append(folder)
        make(folder)

    folder = tmp_path / "cache" / "model"
    assert cached(folder, counted) == folder
    assert cached(folder, counted) == folder
    assert made == [folder]
    (folder / lost).unlink()
    cached(folder, counted)
    assert made == [folder, folder]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_a_failure_keeps_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise ValueError("no text")

    with pytest.raises(ValueError, match="no text"):
        cached(tmp_path / "model", fail)
    assert not (tmp_path / "model").exists()
    cached(tmp_path / "model", make)
    with pytest.raises(ModelError, match="model is there already"):
        refuse_existing(tmp_path / "model")


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"{tmp_path / 'file' / 'cache'}: cannot be written: Not a directory"):
        cached(tmp_path / "file" / "cache" / "model", lambda _: pytest.fail("pretrained a model"))


def test_the_lock_is_free_afterwards(tmp_path: Path) -> None:
    """The lock is released even though a name here still refers to its object."""
    held = []

    def keep(folder: Path) -> None:
        held.append(sys._getframe(1).f_locals["lock"])
        make(folder)

    cached(tmp_path / "model", keep)
    assert not held[0].is_locked


PROGRAM = """
import sys, time
from pathlib import Path
from rosa.mini.pretraining.cache import cached
from tests.mini.test_pretraining_cache import make
def told(folder):
    print("made", flush=True)
    if sys.argv[2] == "stall":
        (folder.parent / f".{folder.name}.half").mkdir()
        print("half written", flush=True)
        time.sleep(600)
    time.sleep(1)
    make(folder)
print("folder", cached(Path(sys.argv[1]) / "model", told), flush=True)
"""


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


@pytest.mark.slow
def test_two_processes_make_it_once_after_one_that_was_killed_while_saving(tmp_path: Path) -> None:
    killed = start(tmp_path, "stall")
    assert killed.stdout is not None
    assert [killed.stdout.readline() for _ in range(2)] == ["made\n", "half written\n"]
    killed.kill()
    killed.wait()
    both = [start(tmp_path, "work") for _ in range(2)]
    lines = sorted(line for process in both for line in process.communicate(timeout=120)[0].splitlines())
    assert [process.returncode for process in both] == [0, 0]
    assert lines == [f"folder {tmp_path / 'model'}"] * 2 + ["made"]
    assert not list(tmp_path.glob(".*.half"))
