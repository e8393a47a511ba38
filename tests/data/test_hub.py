"""Datasets of a stand-in hub: without a network, the commit that is loaded, and failures."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from rosa.config import DataConfig, TaskConfig
from rosa.data import load
from rosa.errors import DataError
from tests import stand_in_hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
TASK = TaskConfig(
    name="cola", texts=["sentence"], labels=["unacceptable", "acceptable"], metrics=["accuracy"], headline="accuracy"
)
HUB = DataConfig(source="hub", path="nyu-mll/glue", revision=REVISION)


@pytest.fixture
def no_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty cache, and a list of the requests that the hub's client would have sent."""
    sent: list[str] = []

    def record(*args: object, **kwargs: object) -> None:
        sent.append("request")
        raise ConnectionError("a request was sent")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", record)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", record)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return sent


def unreachable(*args: object, **kwargs: object) -> None:
    raise socket.gaierror(-2, "Name or service not known")


def test_without_a_network_it_says_what_to_do_and_asks_nothing(
    monkeypatch: pytest.MonkeyPatch, no_requests: list[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(DataError) as caught:
        load(TASK, HUB, seed=0)
    for part in ("nyu-mll/glue cola", REVISION, "cannot be reached", "data=local data.dir=DIR", "data=mini"):
        assert part in str(caught.value)
    assert no_requests == []
    assert datasets.config.HF_HUB_OFFLINE is False


def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch, no_requests: list[str]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def connect(*args: object, **kwargs: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE .* data=local"):
        load(TASK, HUB, seed=0)
    assert no_requests == []


def test_a_proxy_is_what_must_be_reachable(monkeypatch: pytest.MonkeyPatch, no_requests: list[str]) -> None:
    asked = []

    def connect(address: tuple[str, int], timeout: float) -> None:
        asked.append(address)
        unreachable()

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(DataError, match=r"hub\.example cannot be reached"):
        load(TASK, HUB, seed=0)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with pytest.raises(DataError, match=r"proxy\.example cannot be reached"):
        load(TASK, HUB, seed=0)
    assert asked == [("hub.example", 443), ("proxy.example", 3128)]


CARD = """---
configs:
- config_name: cola
  data_files:
  - {split: train, path: cola/train-*}
  - {split: validation, path: cola/validation-*}
dataset_info:
- config_name: cola
  features:
  - {name: sentence, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': unacceptable, '1': acceptable}}}
---
"""


def parquet(sentences: list[str], labels: list[int]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"sentence": sentences, "label": labels}), buffer)
    return buffer.getvalue()


def commit(first: str) -> dict[str, bytes]:
    """The files of a commit whose first training sentence is this one."""
    return {
        "README.md": CARD.encode(),
        "cola/train-00000-of-00001.parquet": parquet([first, "Not fine it."], [1, 0]),
        "cola/validation-00000-of-00001.parquet": parquet([f"Also {first}"], [1]),
    }


OLDER, NEWER, ABSENT = "a" * 40, "b" * 40, "c" * 40
GLUE = {"datasets/nyu-mll/glue": {OLDER: commit("Older."), NEWER: commit("Newer.")}}

LOAD = """
from rosa.config import DataConfig, TaskConfig
from rosa.data import load

task = TaskConfig(name="cola", texts=["sentence"], labels=["unacceptable", "acceptable"], metrics=["accuracy"],
                  headline="accuracy")

def answer(revision):
    data = load(task, DataConfig(source="hub", path="nyu-mll/glue", revision=revision), seed=0)
    return [data.train["text_a"][0], data.evaluation["validation"]["text_a"][0], data.facts["revision"]]
"""
OF_OLDER, OF_NEWER = ["Older.", "Also Older.", OLDER], ["Newer.", "Also Newer.", NEWER]


def asking(*revisions: str) -> list[dict[str, str]]:
    return [{"revision": revision} for revision in revisions]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds both commits, the older one downloaded first."""
    folder = tmp_path_factory.mktemp("cache")
    with stand_in_hub.running(GLUE) as hub:
        assert stand_in_hub.ask(LOAD, hub.address, folder, asking(OLDER, NEWER, "")) == [OF_OLDER, OF_NEWER, OF_NEWER]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["", "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"])
def test_without_a_network_each_pin_finds_its_own_copy_and_no_other(cache: Path, variable: str) -> None:
    """Two pinned commits are in the cache, the requested one not always the newest; a third is not cached."""
    with stand_in_hub.running(GLUE) as hub:
        address = hub.address if variable else "http://127.0.0.1:9"  # the discard port: nothing listens
        environment = {variable: "1"} if variable else {}
        steps = asking(OLDER, NEWER, "", ABSENT)
        older, newer, latest, absent = stand_in_hub.ask(LOAD, address, cache, steps, **environment)
        assert (older, newer, latest) == (OF_OLDER, OF_NEWER, OF_NEWER)
        assert f"at revision {ABSENT} not in the cache (the latest commit there is {NEWER})" in absent
        assert (f"{variable}" if variable else "cannot be reached") in absent
        assert hub.asked == []


@pytest.mark.slow
def test_a_hub_that_refuses_is_quoted_and_no_other_commit_is_taken(cache: Path) -> None:
    """After each of these refusals `datasets` would load its newest copy, of any commit."""
    steps = asking(ABSENT)
    for behaviour in ("fail=gated", "fail=missing", "fail=throttled", f"commit={NEWER}"):
        steps += [{"hub": behaviour}, *asking(ABSENT)]
    with stand_in_hub.running(GLUE) as hub:
        absent, gated, missing, throttled, other = stand_in_hub.ask(LOAD, hub.address, cache, steps)
    assert "has no such revision" in absent
    assert "gated" in gated
    assert "has no such repository" in missing
    assert "too many requests" in throttled
    assert f"returned commit {NEWER}" in other
    for message in (absent, gated, missing, throttled, other):
        assert message.startswith(f"nyu-mll/glue cola at revision {ABSENT}: ")
        assert len(message) < 600


@pytest.mark.slow
def test_a_download_that_breaks_off_is_an_error_and_leaves_no_copy(tmp_path: Path) -> None:
    steps = [{"hub": "cut=cola/train-00000-of-00001.parquet"}, *asking(OLDER), {"hub": "as=ever"}, *asking(OLDER)]
    with stand_in_hub.running(GLUE) as hub:
        broken, again = stand_in_hub.ask(LOAD, hub.address, tmp_path, steps)
    assert broken.startswith(f"nyu-mll/glue cola at revision {OLDER}: cannot be loaded from the hub: ")
    assert again == OF_OLDER


@pytest.mark.slow
def test_of_a_loading_script_the_rows_that_the_hub_made_of_it_are_read(tmp_path: Path) -> None:
    rows = {
        "cola/train/0000.parquet": parquet(["Older.", "Not fine it."], [1, 0]),
        "cola/validation/0000.parquet": parquet(["Also Older."], [1]),
        "README.md": CARD.replace("train-*", "train/*").replace("validation-*", "validation/*").encode(),
    }
    scripts = {"datasets/nyu-mll/glue": {OLDER: rows, NEWER: {"glue.py": b"raise SystemExit"}}}
    with stand_in_hub.running(scripts) as hub:
        newest, pinned = stand_in_hub.ask(LOAD, hub.address, tmp_path, asking("", NEWER))
    assert newest == OF_OLDER
    assert pinned.startswith(f"nyu-mll/glue cola at revision {NEWER}: "), "another commit than the pinned one"


@pytest.mark.slow
def test_a_damaged_copy_is_named(cache: Path) -> None:
    (folder,) = cache.glob(f"datasets/*/cola/*/{NEWER}")
    for file in folder.glob("*.arrow"):
        kept = file.read_bytes()
        file.write_bytes(kept[: len(kept) // 2])
    (damaged,) = stand_in_hub.ask(LOAD, "http://127.0.0.1:9", cache, asking(NEWER))
    assert "the copy in the cache is damaged" in damaged
    assert f"remove the folder {folder}" in damaged


def pairs(*rows: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    columns = {"meaning_representation": [mr for mr, _ in rows], "human_reference": [text for _, text in rows]}
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


LOAD_E2E = """
from hydra import compose, initialize_config_dir
from rosa.config import from_hydra, register
from rosa.data import e2e

register()
with initialize_config_dir("CONF", version_base="1.3"):
    config = from_hydra(compose("config", overrides=["task=e2e", "model=mini-gpt2", "data=hub"]))

def answer():
    data = e2e.load(config.task, config.data, 0)
    groups = [[group.mr, list(group.references)] for group in data.groups["test"]]
    return [data.train.to_dict(), data.evaluation["validation"].to_dict(), groups, data.facts["revision"]]
"""


@pytest.mark.slow
def test_e2e_is_read_from_the_layout_that_its_commit_has(tmp_path: Path) -> None:
    """A commit of the hub's own branch of Parquet files: CONFIGURATION/SPLIT/NUMBER.parquet and no card."""
    pinned = "5061e4307d2e553f9b51ccb73998d7039fe6ed90"
    files = {
        "default/test/0000.parquet": pairs(("name[C]", "C."), ("name[C]", "It is C.")),
        "default/train/0000.parquet": pairs(("name[A]", "A.")),
        "default/validation/0000.parquet": pairs(("name[B]", "B.")),
    }
    main = {"README.md": b"---\nlicense: cc-by-sa-4.0\n---\n", "e2e_nlg.py": b"raise SystemExit"}
    setup = LOAD_E2E.replace("CONF", str(stand_in_hub.PROJECT / "conf"))
    with stand_in_hub.running({"datasets/tuetschek/e2e_nlg": {pinned: files, NEWER: main}}) as hub:
        (found,) = stand_in_hub.ask(setup, hub.address, tmp_path, [{}])
    assert found == [
        {"mr": ["name[A]"], "ref": ["A."]},
        {"mr": ["name[B]"], "ref": ["B."]},
        [["name[C]", ["C.", "It is C."]]],
        pinned,
    ]
