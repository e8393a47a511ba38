"""The hub: what happens without one, and a download from a stand-in server that answers as the hub does."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from rosa.config import DataConfig, TaskConfig
from rosa.data import load
from rosa.errors import DataError

PROJECT = Path(__file__).resolve().parents[2]
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


FILES = {
    "README.md": CARD.encode(),
    "cola/train-00000-of-00001.parquet": parquet(["Fine.", "Not fine it."], [1, 0]),
    "cola/validation-00000-of-00001.parquet": parquet(["Also fine."], [1]),
}


class StandIn(BaseHTTPRequestHandler):
    """Answers the few requests that loading a data set of parquet files takes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if name in FILES:
                self.reply(200, FILES[name], X_Repo_Commit=REVISION, ETag=f'"{name}"')
                return
        elif "/tree/" in path:
            folder = path.split("/tree/")[1].partition("/")[2]
            tree: list[dict] = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in FILES.items()
                if name.rpartition("/")[0] == folder
            ]
            if not folder:
                tree.append({"type": "directory", "path": "cola", "oid": "0" * 40})
            self.reply(200, json.dumps(tree).encode())
            return
        elif path.startswith("/api/datasets/"):
            files = [{"rfilename": name} for name in FILES]
            self.reply(200, json.dumps({"id": "nyu-mll/glue", "sha": REVISION, "siblings": files}).encode())
            return
        self.reply(404, b"{}", X_Error_Code="EntryNotFound")


@pytest.fixture
def stand_in() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


LOADER = """
import json, sys
from rosa.config import DataConfig, TaskConfig
from rosa.data import DataError, load
task = TaskConfig(name="cola", texts=["sentence"], labels=["unacceptable", "acceptable"], metrics=["accuracy"],
                  headline="accuracy")
for revision in sys.argv[1:]:
    try:
        data = load(task, DataConfig(source="hub", path="nyu-mll/glue", revision=revision), seed=0)
        print(json.dumps([data.train.to_dict(), len(data.evaluation["validation"]), data.facts["revision"]]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def load_elsewhere(cache: Path, endpoint: str, *revisions: str) -> list:
    """What a fresh process loads: the hub's libraries read their address at import."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment.update(HF_HOME=str(cache), HF_ENDPOINT=endpoint, PYTHONPATH=str(PROJECT), HF_HUB_OFFLINE="0")
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_DATASETS_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *revisions], env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_download_is_used_again_without_a_network(tmp_path: Path, stand_in: str) -> None:
    expected = [{"text_a": ["Fine.", "Not fine it."], "label": [1, 0]}, 1, REVISION]
    assert load_elsewhere(tmp_path, stand_in, REVISION) == [expected]

    nowhere = "http://127.0.0.1:9"  # the discard port: nothing listens
    other = "f" * 40
    pinned, newest, missing = load_elsewhere(tmp_path, nowhere, REVISION, "", other)
    assert pinned == expected
    assert newest == expected
    assert f"at revision {other} not in the cache (the cache has commit {REVISION})" in missing
