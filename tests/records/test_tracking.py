"""The copy in W&B: the content of an offline run's file, and that no failure of W&B reaches the caller."""

from __future__ import annotations

import json
import logging
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from rosa.config import Config, DataConfig, LoggerConfig, ModelConfig, RosaConfig, TaskConfig, TrainConfig
from rosa.records import tracking

ROOT = Path(__file__).resolve().parents[2]
RUN_ID = "rank-sweep/mini-roberta/cola/rosa-1f2e3d4c/3"


def config(**logger: Any) -> Config:
    task = TaskConfig(name="cola", texts=["sentence"], labels=["no", "yes"], metrics=["accuracy"], headline="accuracy")
    return Config(
        model=ModelConfig(name="mini-roberta", source="mini"),
        task=task,
        method=RosaConfig(rank=4),
        train=TrainConfig(),
        data=DataConfig(),
        logger=LoggerConfig(**logger),
        seed=3,
        experiment_name="rank-sweep",
    )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Remove the developer's W&B settings, and leave no service running for the next test."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # restored afterwards: start() sets it where it is missing
    yield
    module = sys.modules.get("wandb")
    if module is not None and not isinstance(module, FakeWandb):
        module.teardown()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The tracker's log lines, without W&B's own, which a user does not see."""
    return [record.getMessage() for record in caplog.records if record.name == tracking.logger.name]


# --- reading W&B's file ----------------------------------------------------------------------------------------------

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records_of(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file: LevelDB's log format after a header of seven bytes, W&B's messages within."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, []
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:  # a block's end too short for a header is filled with zeros
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (FULL, LAST):
            yield Record.FromString(b"".join(parts))
            parts = []


def name_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def offline_files(folder: Path) -> list[Path]:
    """The files of the runs in a folder, complete: W&B's service writes the end of one shortly after ``finish``."""
    import wandb

    wandb.teardown()
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def history_of(path: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records_of(path):
        if record.WhichOneof("record_type") == "history":
            row = {name_of(item): json.loads(item.value_json) for item in record.history.item}
            rows.append({name: value for name, value in row.items() if not name.startswith("_")})
    return rows


@pytest.mark.slow
def test_an_offline_run_holds_metrics_config_group_and_tags(tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO):
        tracker = tracking.start(config(), tmp_path, RUN_ID, resume=False)
        tracker.log({"loss": 0.75, "learning_rate": 1e-3}, step=50)
        tracker.log({"eval_accuracy": 0.5}, step=100)
        tracker.log({"loss": 0.25}, step=60)  # back, as after a resume
        tracker.summary({"best/accuracy": 0.875})
        tracker.finish()

    (file,) = offline_files(tmp_path)
    records = list(records_of(file))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project, run.run_group, run.job_type) == (tracker.id, "rosa", "rank-sweep", "train")
    assert run.display_name == "mini-roberta/cola/rosa-1f2e3d4c/3"
    assert sorted(run.tags) == ["cola", "mini-roberta", "rosa"]
    sent = {name_of(item): json.loads(item.value_json) for item in run.config.update}
    assert sent["method"]["rank"] == 4
    assert sent["seed"] == 3
    assert sent["train"]["beta2"] == 0.98

    assert history_of(file) == [
        {"loss": 0.75, "learning_rate": 0.001, "step": 50},
        {"eval_accuracy": 0.5, "step": 100},
        {"loss": 0.25, "step": 60},
    ]
    axes = {(r.metric.name or r.metric.glob_name): r.metric.step_metric for r in records if r.HasField("metric")}
    assert axes["*"] == "step"
    summary = {name_of(i): i.value_json for r in records if r.HasField("summary") for i in r.summary.update}
    assert json.loads(summary["best/accuracy"]) == 0.875
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [0]

    (line,) = said(caplog)  # one line, ours
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in line
    assert capfd.readouterr() == ("", "")


def test_an_offline_run_holds_a_copy_of_what_is_kept(tmp_path):
    tracker = tracking.start(config(), tmp_path, RUN_ID, resume=False)
    (tmp_path / "record.json").write_text('{"status": "done"}')
    tracker.keep(tmp_path / "record.json")
    tracker.finish()
    (tmp_path / "record.json").write_text("later")
    (file,) = offline_files(tmp_path)
    assert (file.parent / "files" / "record.json").read_text() == '{"status": "done"}'
    kept = [item.path for r in records_of(file) if r.HasField("files") for item in r.files.files]
    assert "record.json" in kept


def test_a_file_that_cannot_be_kept_is_one_warning(tmp_path, monkeypatch, caplog):
    fake(monkeypatch)
    tracker = tracking.start(config(), tmp_path, RUN_ID, resume=False)
    tracker.keep(tmp_path / "absent.json")
    tracker.keep(tmp_path / "absent.json")
    (line,) = said(caplog)
    assert "W&B failed while keeping absent.json (FileNotFoundError" in line


def test_nothing_in_the_file_names_the_user_or_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_USERNAME", "some-user-name")
    tracking.start(config(), tmp_path, RUN_ID, resume=False).finish()
    (file,) = offline_files(tmp_path)
    content = file.read_bytes()
    for secret in ("k" * 40, "some-user-name", sys.executable):
        assert secret.encode() not in content


def test_runs_follow_each_other_and_a_resumed_one_keeps_its_id(tmp_path):
    first = tracking.start(config(), tmp_path / "a", RUN_ID, resume=False)
    first.log({"loss": 1.0}, step=10)
    first.finish(exit_code=1)
    again = tracking.start(config(), tmp_path / "a", RUN_ID, resume=True)
    again.log({"loss": 2.0}, step=5)
    again.finish()
    other = tracking.start(config(), tmp_path / "b", f"{RUN_ID}4", resume=False)
    other.log({"loss": 3.0}, step=1)
    other.finish()

    assert first.id == again.id != other.id
    sessions = [history_of(file) for file in offline_files(tmp_path / "a")]
    assert len(sessions) == 2
    assert [{"loss": 1.0, "step": 10}] in sessions
    assert [{"loss": 2.0, "step": 5}] in sessions
    assert [history_of(file) for file in offline_files(tmp_path / "b")] == [[{"loss": 3.0, "step": 1}]]


def test_the_id_follows_the_identity():
    ids = [tracking.wandb_id(identity) for identity in (RUN_ID, RUN_ID, f"{RUN_ID}1", f"x{RUN_ID}")]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(identity.isalnum() for identity in ids)


@pytest.mark.slow
def test_processes_run_at_once_and_offline_means_no_network(tmp_path):
    """A stand-in for W&B's server gets no request from two offline runs at the same time."""
    program = """
import sys
from pathlib import Path
from rosa.records import tracking
from tests.records import test_tracking
number = sys.argv[2]
tracker = tracking.start(test_tracking.config(), Path(sys.argv[1]) / number, f"run/{number}", resume=False)
tracker.log({"loss": float(number)}, step=1)
tracker.finish()
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        variables["WANDB_BASE_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        processes = [
            subprocess.Popen([sys.executable, "-c", program, str(tmp_path), number], cwd=ROOT, env=variables)
            for number in "12"
        ]
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
        with pytest.raises(BlockingIOError):
            server.accept()
    for number in "12":
        (file,) = offline_files(tmp_path / number)
        assert history_of(file) == [{"loss": float(number), "step": 1}]


# --- W&B off, and W&B broken -----------------------------------------------------------------------------------------


class FakeWandb(ModuleType):
    """Counts calls, and raises at one of them."""

    run = None

    def __init__(self, broken: str) -> None:
        super().__init__("wandb")
        self.broken = broken
        self.calls: list[str] = []
        self.id = "fake"
        self.url = "https://fake"
        self.dir = "/fake/wandb/offline-run-1/files"
        self.has_key = True

    @property
    def summary(self) -> FakeWandb:
        return self

    def _call(self, name: str) -> FakeWandb:
        self.calls.append(name)
        if name == self.broken:
            raise ConnectionError(f"{name} is down")
        return self

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802 - the name that W&B gave it
        return settings

    def setup(self, settings: Any) -> None:
        self._call("setup")

    def login(self, prompt: bool) -> bool:
        assert prompt is False
        return self.has_key

    def init(self, **arguments: Any) -> FakeWandb:
        return self._call("init")

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self._call("define_metric")

    def log(self, values: dict[str, float], step: int | None, commit: bool) -> None:
        self._call("log")

    def update(self, values: dict[str, Any]) -> None:
        self._call("summary")

    def finish(self, exit_code: int) -> None:
        self._call("finish")

    def teardown(self) -> None:
        self._call("teardown")


def fake(monkeypatch: pytest.MonkeyPatch, broken: str = "") -> FakeWandb:
    module = FakeWandb(broken)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def whole_run(folder: Path, **logger: Any) -> tracking.Tracker:
    tracker = tracking.start(config(**logger), folder, RUN_ID, resume=False)
    tracker.log({"loss": 1.0}, step=1)
    tracker.log({"loss": 0.5}, step=2)
    tracker.summary({"best": 1})
    tracker.finish()
    tracker.finish()
    return tracker


@pytest.mark.parametrize("broken", ["setup", "init", "define_metric", "log", "summary", "finish", "teardown"])
def test_a_failure_is_one_warning_and_then_silence(tmp_path, monkeypatch, caplog, broken):
    module = fake(monkeypatch, broken)
    whole_run(tmp_path)
    warnings = said(caplog)
    if broken == "teardown":  # only called after another failure
        assert warnings == []
        assert module.calls.count("finish") == 1
        return
    assert len(warnings) == 1
    assert f"ConnectionError: {broken} is down" in warnings[0]
    assert module.calls[-2:] == [broken, "teardown"]


def test_a_teardown_that_fails_as_well_is_not_mentioned(tmp_path, monkeypatch, caplog):
    module = fake(monkeypatch, "log")

    def teardown() -> None:
        raise OSError("the service is gone")

    monkeypatch.setattr(module, "teardown", teardown)
    whole_run(tmp_path)
    assert len(said(caplog)) == 1


def test_no_wandb_installed_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = whole_run(tmp_path)
    assert len(said(caplog)) == 1
    assert "ModuleNotFoundError" in said(caplog)[0]
    assert (tracker.id, tracker.mode) == (None, "disabled")


def test_online_without_a_key_asks_nobody(tmp_path, monkeypatch, caplog):
    module = fake(monkeypatch)
    module.has_key = False
    tracker = whole_run(tmp_path, mode="online")
    assert "wandb login" in said(caplog)[0]
    assert "init" not in module.calls
    assert tracker.id is None


@pytest.mark.parametrize(
    ("environment", "logger", "mode"),
    [
        ({}, {}, "offline"),
        ({}, {"mode": "online"}, "online"),
        ({}, {"mode": "disabled"}, "disabled"),
        ({}, {"enabled": False}, "disabled"),
        ({"WANDB_MODE": "disabled"}, {}, "disabled"),
        ({"WANDB_MODE": "online"}, {}, "online"),
        ({"WANDB_MODE": "offline"}, {"mode": "online"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, {"mode": "online"}, "offline"),
        ({"WANDB_MODE": "online"}, {"enabled": False}, "disabled"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, {}, "disabled"),
        ({"WANDB_DISABLED": "false"}, {}, "offline"),
    ],
)
def test_who_decides_the_mode(tmp_path, monkeypatch, environment, logger, mode):
    module = fake(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracker = whole_run(tmp_path, **logger)
    assert tracker.mode == mode
    assert ("init" in module.calls) is (mode != "disabled")
    assert tracker.id == (None if mode == "disabled" else "fake")


def test_a_mode_that_wandb_does_not_know_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    whole_run(tmp_path)
    assert len(said(caplog)) == 1
    assert "sometimes" in said(caplog)[0]


def test_a_service_that_dies_ends_the_tracking_of_one_run_only(tmp_path, caplog):
    tracker = tracking.start(config(), tmp_path / "a", RUN_ID, resume=False)
    services = [child for child in psutil.Process().children(recursive=True) if "wandb" in child.name()]
    assert services
    for service in services:
        service.kill()
        service.wait(timeout=10)
    deadline = time.monotonic() + 30
    while not said(caplog) and time.monotonic() < deadline:
        tracker.log({"loss": 1.0}, step=1)
    tracker.finish()
    assert len(said(caplog)) == 1

    caplog.clear()
    after = tracking.start(config(), tmp_path / "b", RUN_ID, resume=False)
    after.log({"loss": 2.0}, step=1)
    after.finish()
    assert said(caplog) == []
    assert [history_of(file) for file in offline_files(tmp_path / "b")] == [[{"loss": 2.0, "step": 1}]]


EARLY = """
import sys
from rosa.records import tracking
from tests.records.test_tracking import config
{}
before = set(sys.modules)
tracking.load_early(config(mode=sys.argv[1]))
print(*sorted(name for name in set(sys.modules) - before if name in ("wandb", "wandb.sdk.launch", "torch")))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "first", "loaded"),
    [
        ("offline", "", "wandb wandb.sdk.launch"),
        ("disabled", "", ""),
        ("offline", "sys.modules['wandb'] = None  # it is not installed", ""),
    ],
)
def test_what_is_slow_to_load_late_is_loaded_early(mode: str, first: str, loaded: str) -> None:
    asked = [sys.executable, "-c", EARLY.format(first), mode]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == loaded
