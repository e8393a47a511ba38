"""Sweeps on the command line: a line per run, a list of failures, and no run done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from rosa import records
from rosa.run.device import resolve
from rosa.sweep.jobs import Job
from rosa.sweep.local import Result, Schedule, Stopping, places, summarize, visible_gpus
from rosa.sweep.progress import duration, expected_seconds
from rosa.sweep.workers import Death
from tests import stand_in_hub
from tests.commands import Ended, begin_in, command, server
from tests.conftest import ROOT, Composer


def sweep(tiny_model: Path, tmp_path: Path, *overrides: str) -> Ended:
    return command(
        "scripts/train.py", "-m", "model=folder", "model.name=tiny", f"model.path={tiny_model}", "data.train_size=64",
        "data.evaluation_size=32", "train.epochs=1", "train.device=cpu", "logger=none", f"results_dir={tmp_path}",
        *overrides,
    )  # fmt: skip


@pytest.mark.slow
def test_sweep_runs_all_keeps_failures_apart_and_does_nothing_twice(tiny_model: Path, tmp_path: Path) -> None:
    overrides = ("method=rosa,full", "seed=0,1", "task=cola", "train.lr=0.001")
    first = sweep(tiny_model, tmp_path, *overrides)
    assert first.returncode == 0, first.stderr
    assert "4 runs in" in first.stdout
    assert "4 done, 0 skipped, 0 failed" in first.stdout
    assert sum(line.startswith("done   ") for line in first.stdout.splitlines()) == 4, "one line a run"
    found, problems = records.find(tmp_path)
    assert not problems
    assert {(r["identity"]["method"], r["identity"]["seed"]) for r in found} == {
        (method, seed) for method in ("rosa", "full") for seed in (0, 1)
    }

    # The second seed of the first call is no reason to skip a third; one learning rate is too large.
    second = sweep(tiny_model, tmp_path, "method=rosa", "seed=0,2", "task=cola", "train.lr=0.001,1e30")
    assert second.returncode == 1
    assert "1 done, 1 skipped, 2 failed" in second.stdout
    assert "failed: DivergedError: 64 of 64 logits are not finite" in second.stdout
    assert "again: python scripts/train.py" in second.stdout

    third = sweep(tiny_model, tmp_path, *overrides)
    assert third.returncode == 0
    assert "every run was already finished" in third.stdout


def test_sweep_without_a_hub_stops_before_its_first_run(tmp_path: Path) -> None:
    words = ["scripts/train.py", "-m", "experiment=glue_paper_tune", f"results_dir={tmp_path}", "task=rte"]
    # The hub's libraries read these when they are imported.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = begin_in(server(*stand_in_hub.LOADED), words, ROOT, offline, {}).end()
    assert done.returncode == 2
    assert "error: model.path=FacebookAI/roberta-base: not in the hub's cache" in done.stderr
    assert "model=folder model.path=DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.quick
def test_summary_counts_and_repeats(composed: Composer) -> None:
    job = Job(composed(), "python scripts/train.py x")
    text = summarize([Result(job, "failed", "OSError: full", 1.0), Result(job, "interrupted", "", 1.0)], 3.0)
    assert text.splitlines() == [
        "2 runs in 00:03: 0 done, 0 skipped, 1 failed, 1 interrupted",
        "failed: OSError: full",
        "  again: python scripts/train.py x",
        "stopped early: run the same command again to resume",
    ]
    forced = Job(composed("train.force=true"), "python scripts/train.py train.force=true")
    *_, last = summarize([Result(forced, "done", "", 1.0), Result(forced, "not started", "", 0.0)], 3.0).splitlines()
    assert last.startswith("stopped early: run the same command without train.force=true to resume")


# --- the schedule, with stand-ins for the processes ------------------------------------------------------------------


class Scripted:
    """Stands in for the processes: returns each task's scripted answers in turn, and repeats the last one."""

    def __init__(self, places: int, script: dict[str, list[str | Death]]) -> None:
        self.places = places
        self.script = script
        self.tasks: list[Job] = []
        self.started: list[str] = []
        self.asked_to_stop = self.killed = 0

    @property
    def busy(self) -> int:
        return len(self.tasks)

    @property
    def free(self) -> int:
        return self.places - self.busy

    def start(self, job: Job) -> None:
        assert self.free
        self.started.append(job.command)
        self.tasks.append(job)

    def finished(self, timeout: float) -> list[tuple[Job, Result | Death]]:
        ended: list[tuple[Job, Result | Death]] = []
        for job in self.tasks:
            words = self.script.get(job.command, ["done"])
            word = words.pop(0) if len(words) > 1 else words[0]
            ended.append((job, word if isinstance(word, Death) else Result(job, word, "a line", 0.0)))
        self.tasks = []
        return ended

    def ask_to_stop(self) -> None:
        self.asked_to_stop += 1

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture
def scheduled(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, str], Scripted]]:
    monkeypatch.setattr("rosa.sweep.local.AGAIN_SECONDS", 0.0)

    def work_off(
        script: dict[str, list[str | Death]], *overrides: str, places: int = 1, stop_before: int = 0
    ) -> tuple[dict[str, str], Scripted]:
        config = composed(*overrides)
        workers = Scripted(places, script)
        stopping = Stopping()
        stopping.asked = stop_before
        schedule = Schedule([Job(config, name) for name in "abcd"], cast(Any, workers), stopping)
        results = schedule.work_off()
        assert len(results) == 4, "each run once"
        return {result.job.command: result.status for result in results}, workers

    return work_off


@pytest.mark.quick
def test_a_run_that_another_process_does_comes_again_at_the_end(scheduled: Any) -> None:
    statuses, workers = scheduled({"a": ["busy", "busy", "skipped"], "b": ["busy", "done"], "c": ["skipped"]})
    assert statuses == {"a": "elsewhere", "b": "done", "c": "skipped", "d": "done"}
    assert workers.started == ["a", "b", "c", "d", "a", "b", "a"]


@pytest.mark.quick
def test_fail_fast_leaves_what_has_not_begun(scheduled: Any) -> None:
    script: dict[str, list[str | Death]] = {"b": ["failed"]}
    assert scheduled(script)[0]["c"] == "done"
    statuses, workers = scheduled(script, "train.fail_fast=true", places=2)
    assert statuses == {"a": "done", "b": "failed", "c": "not started", "d": "not started"}
    assert workers.started == ["a", "b"]
    assert workers.asked_to_stop == 1


@pytest.mark.quick
def test_a_second_signal_kills(scheduled: Any) -> None:
    statuses, workers = scheduled({}, stop_before=2)
    assert set(statuses.values()) == {"not started"}
    assert (workers.asked_to_stop, workers.killed) == (0, 1)


@pytest.mark.quick
def test_a_killed_run_has_a_record_that_says_so(scheduled: Any, composed: Composer) -> None:
    statuses, _ = scheduled({"a": [Death(-9)], "b": ["failed"]})
    assert statuses == {"a": "failed", "b": "failed", "c": "done", "d": "done"}
    record = records.read(records.folder(resolve(composed())[0]) / records.RECORD)
    assert record["status"] == "failed"
    assert record["error"]["message"].startswith("SIGKILL: killed by the system, probably out of memory")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("at_once", "jobs", "cores", "gpus", "expected_gpus", "threads"),
    [
        (0, 10, 8, [], [None] * 8, 1),
        (0, 3, 8, [], [None] * 3, 2),
        (2, 10, 8, [], [None] * 2, 4),
        (0, 10, 16, ["0", "1", "5"], ["0", "1", "5"], 5),
        (0, 1, 16, ["0", "1"], ["0"], 16),
        (3, 10, 16, ["GPU-a", "GPU-b"], ["GPU-a", "GPU-b", "GPU-a"], 5),
    ],
)
def test_cores_and_gpus_are_shared_out(
    at_once: int, jobs: int, cores: int, gpus: list[str], expected_gpus: list[str | None], threads: int
) -> None:
    environments, found = places(at_once, jobs, cores, gpus)
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments] == expected_gpus
    assert found == threads
    assert {environment["RAYON_NUM_THREADS"] for environment in environments} == {str(threads)}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 0, []), (None, 2, ["0", "1"]), ("2,3", 2, ["2", "3"]), ("GPU-a, GPU-b", 2, ["GPU-a", "GPU-b"])],
)
def test_the_gpus_are_those_that_this_process_sees(
    visible: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected


@pytest.mark.quick
def test_the_expected_end_does_not_count_what_was_there_before() -> None:
    assert expected_seconds(0, 10, 5.0) is None
    assert expected_seconds(4, 10, 20.0) == 50.0
    assert [duration(seconds) for seconds in (3.4, 61, 3723)] == ["00:03", "01:01", "1:02:03"]
