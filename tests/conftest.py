"""Shared pieces: a tiny model on disk, the composed configuration of a tiny run, and the real data where it is."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from rosa.config import Config
from tests.composing import compose_config
from tests.tiers import mark_slow_cases

ROOT = Path(__file__).resolve().parent.parent
# What tests start in processes of their own imports the package from here, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
REAL_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and results must not depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def what_was_there_is_no_garbage() -> Iterator[None]:
    """Exclude imported modules, a million objects, from the garbage collections with which each run starts and ends."""
    gc.collect()
    gc.freeze()
    with mock.patch.object(gc, "unfreeze", unfreezing_slows):
        yield


def unfreezing_slows() -> None:
    pytest.fail("gc.unfreeze would slow every test that comes later")


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """A process that is killed loses nothing that it has written: only a power cut would, which no test makes."""
    with mock.patch.object(os, "fsync"):
        yield


WHOLE_RUNS = ("experiments", "export", "run", "scripts", "sweep")
"""Folders whose tests train, or start processes: they are slow but for those marked quick."""


LONG = (
    *("training/test_pretend_device.py", "sweep/test_kills.py", "docs/test_adding.py", "docs/test_own_data.py"),
    *("scripts/test_network.py", "models/test_hub.py", "data/test_hub.py", "adapters/test_sharding.py"),
    *("run/test_distributed.py", "test_package.py"),
)
"""Modules with tests or fixtures of ten seconds and more. They come first: of two processes that share the tests, none
waits for the other's last one, nor takes over half of a module and makes what that shares once more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long modules first, and mark the slow tests, which `make test-quick` leaves out.

    Other folders' slow tests carry the mark themselves.
    """
    mark_slow_cases(items)
    first = {ROOT / "tests" / name: number for number, name in enumerate(LONG)}
    assert all(path.is_file() for path in first), f"{LONG}: a module is gone"
    items.sort(key=lambda item: first.get(item.path, len(first)))
    folders = [ROOT / "tests" / name for name in WHOLE_RUNS]
    assert all(folder.is_dir() for folder in folders), f"{WHOLE_RUNS}: a folder is gone"
    for item in items:
        whole = any(folder in item.path.parents for folder in folders)
        if whole and not item.get_closest_marker("quick"):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is not slow, and does what slow tests do, fails: so the quick ones stay quick."""
    if item.get_closest_marker("slow"):
        return (yield)
    trainer = sys.modules.get("rosa.training.trainer")
    with ExitStack() as guards:
        guards.enter_context(mock.patch.object(subprocess.Popen, "__init__", no_interpreter))
        if trainer is not None:
            guards.enter_context(mock.patch.object(trainer.HarnessTrainer, "train", only_if_slow))
        return (yield)


def only_if_slow(*args: object, **kwargs: object) -> None:
    pytest.fail("this test trains a run or starts an interpreter: mark it slow")


start_process = subprocess.Popen.__init__


def no_interpreter(self: subprocess.Popen[Any], args: Any, *rest: Any, **options: Any) -> None:
    """Start a program other than Python, and than the shell in which tests run the commands of a page."""
    program = args if isinstance(args, (str, Path)) else next(iter(args))
    if Path(program).name.startswith(("python", "bash")):
        only_if_slow()
    start_process(self, args, *rest, **options)


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """The real GLUE files, in the official layout."""
    folder = REAL_DATA / "glue"
    if not folder.is_dir():
        pytest.skip("the real GLUE files are not beside the project")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of a few thousand random weights, with the mini scale's tokenizer, as save_pretrained writes it."""
    from rosa.config import MiniModelConfig
    from rosa.mini import text as mini_text
    from rosa.mini.pretraining.roberta import build_model, build_tokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = build_tokenizer(mini_text.vocabulary())
    torch.manual_seed(0)
    shape = MiniModelConfig(layers=2, hidden=32, heads=4, intermediate=64)
    build_model(shape, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of a few thousand random weights over a vocabulary of words, as save_pretrained writes it."""
    from tests import causal

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    causal.build_model().save_pretrained(folder)
    causal.build_tokenizer().save_pretrained(folder)
    return folder


Composer = Callable[..., Config]


@pytest.fixture
def composed(tmp_path: Path, tiny_model: Path) -> Composer:
    """Compose a small run from the real configuration files; arguments are Hydra overrides."""
    return composer(tmp_path, tiny_model)


def composer(folder: Path, model: Path) -> Composer:
    """As the fixture ``composed``, of another scope: results and caches lie in ``folder``."""

    def make(*overrides: str) -> Config:
        return compose_config(
            "model=folder",
            "model.name=tiny",
            f"model.path={model}",
            "data.train_size=96",
            "data.evaluation_size=32",
            "train.epochs=3",
            "train.batch_size=16",
            "train.device=cpu",
            "logger=none",
            f"results_dir={folder / 'results'}",
            f"cache_dir={folder / 'cache'}",
            *overrides,
        )

    return make
