"""A stand-in for the Hugging Face hub: repositories of several commits, and the ways in which a hub fails.

It answers the requests made to load a dataset of Parquet files, or a model. The hub's libraries read its address at
import, so its clients run in a process of their own (:func:`ask`).
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.commands import begin_in, server

PROJECT = Path(__file__).resolve().parents[1]

Commits = Mapping[str, Mapping[str, bytes]]
"""The files of each commit, the newest last: ``main`` is at that one, ``refs/convert/parquet`` at the first."""

FAILURES = {
    "gated": (401, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "throttled": (429, ""),
}
"""What the hub can be told to answer to every request: status and error code."""


class Hub(ThreadingHTTPServer):
    """A hub of these repositories: ``datasets/OWNER/NAME`` or, of a model, ``OWNER/NAME``.

    A request to ``/stand-in?KEY=VALUE`` sets how it behaves from then on: ``fail`` one of FAILURES; ``cut`` breaks
    off every file of that name in the middle; ``commit`` answers every request with that commit, whatever was asked.
    """

    def __init__(self, repositories: Mapping[str, Commits]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories = repositories
        self.behaviour: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """The address that stands for the hub's."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def reply(self, status: int, body: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if path == "/stand-in":
            self.server.behaviour = dict(parse_qsl(address.query))
            return self.reply(200, b"")
        self.server.asked.append(path)
        behaviour = self.server.behaviour
        if "fail" in behaviour:
            status, code = FAILURES[behaviour["fail"]]
            return self.reply(status, b"{}", **({"X_Error_Code": code} if code else {}))
        for name, commits in self.server.repositories.items():
            api = name if name.startswith("datasets/") else f"models/{name}"
            file = re.fullmatch(rf"/{name}/resolve/([^/]+)/(.+)", path)
            tree = re.fullmatch(rf"/api/{api}/tree/([^/]+)/?(.*)", path)
            about = re.fullmatch(rf"/api/{api}(?:/revision/([^/]+|refs/convert/parquet))?", path)
            for found in filter(None, (file, tree, about)):
                revision = behaviour.get("commit", found[1] or "main")
                first, *_, last = [*commits, *commits]
                commit = {"main": last, "refs/convert/parquet": first}.get(revision, revision)
                if commit not in commits:
                    return self.reply(404, b"{}", X_Error_Code="RevisionNotFound")
                if found is file:
                    return self.file(commits[commit], commit, found[2])
                if found is about:
                    return self.about(name, commit, commits[commit])
                deep = dict(parse_qsl(address.query)).get("recursive", "").lower() == "true"
                return self.folder(commits[commit], found[2], deep)
        return self.reply(404, b"{}", X_Error_Code="RepoNotFound")

    def file(self, files: Mapping[str, bytes], commit: str, name: str) -> None:
        if name not in files:
            return self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        broken = self.server.behaviour.get("cut") == name
        return self.reply(200, files[name], cut=broken, X_Repo_Commit=commit, ETag=f'"{commit}-{name}"')

    def about(self, name: str, commit: str, files: Mapping[str, bytes]) -> None:
        about = {"id": name.removeprefix("datasets/"), "sha": commit, "siblings": [{"rfilename": f} for f in files]}
        return self.reply(200, json.dumps(about).encode())

    def folder(self, files: Mapping[str, bytes], folder: str, deep: bool) -> None:
        start = f"{folder}/" if folder else ""
        inside = {path: len(content) for path, content in files.items() if path.startswith(start)}
        if not inside:
            return self.reply(404, b"{}", X_Error_Code="EntryNotFound")
        entries: dict[str, dict[str, object]] = {}
        for path, size in inside.items():
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts) if deep else 2):
                if depth < len(parts):
                    name = start + "/".join(parts[:depth])
                    entries[name] = {"type": "directory", "path": name, "oid": "0" * 40}
            if deep or len(parts) == 1:
                entries[path] = {"type": "file", "path": path, "size": size, "oid": "0" * 40}
        return self.reply(200, json.dumps(list(entries.values())).encode())


@contextmanager
def running(repositories: Mapping[str, Commits]) -> Iterator[Hub]:
    """A stand-in that answers while the block runs."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


_ASK = """
import json, os, sys, urllib.request
from rosa.errors import RosaError
{setup}
for step in json.loads(sys.argv[1]):
    if "hub" in step:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/stand-in?" + step["hub"]).close()
        continue
    try:
        print("answer:" + json.dumps(answer(**step)))
    except RosaError as error:
        print("answer:" + json.dumps(str(error)))
"""

LOADED = (
    "torch._dynamo",
    "torch.distributed.tensor",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "sklearn.metrics",
)
"""What takes long to import, and does not import the hub's libraries."""


def ask(setup: str, address: str, cache: Path, steps: list[dict[str, str]], **environment: str) -> list:
    """Run ``answer(**step)`` for each step in one process, which has yet to import the hub's libraries.

    Args:
        setup: Python source that defines ``answer``.
        address: of the hub.
        cache: the folder of the hub's libraries.
        steps: arguments of ``answer``, or ``{"hub": QUERY}``, which sets the stand-in's behaviour.
        environment: further variables.

    Returns:
        The results, or error messages.
    """
    inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN"):
        inherited.pop(name, None)
    inherited.update(HF_HOME=str(cache), HF_ENDPOINT=address, PYTHONPATH=str(PROJECT), HF_HUB_DISABLE_XET="1")
    program = cache / "ask.py"
    program.write_text(_ASK.replace("{setup}", setup), encoding="utf-8")
    done = begin_in(server(*LOADED), [program, json.dumps(steps)], PROJECT, inherited | environment, {}).end()
    assert done.returncode == 0, done.stderr
    return [json.loads(line.removeprefix("answer:")) for line in done.stdout.splitlines() if line.startswith("answer:")]
