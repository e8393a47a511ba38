"""Records of runs: written atomically, checked when read, found, and used to select a learning rate."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rosa import records
from rosa.config import FullConfig, LoraConfig, ModelConfig, RosaConfig, identity_hash
from rosa.errors import RecordError
from rosa.records import selection, store
from tests.report.synthetic_records import config, record

ROOT = Path(__file__).resolve().parents[2]


def put(results: Path, *made: dict[str, Any]) -> list[Path]:
    """Write records where their runs would."""
    paths = []
    for one in made:
        run = one["identity"]
        parts = [run[key] for key in ("experiment", "model", "task")]
        folder = results.joinpath("runs", *parts, f"{run['method']}-{run['hash']}", f"seed{run['seed']}")
        records.write(folder, one)
        paths.append(folder / records.RECORD)
    return paths


# --- identity --------------------------------------------------------------------------------------------------------


def test_folder_is_the_identity_and_not_the_time():
    settings = config("rte", seed=3, experiment="e", results_dir="r")
    expected = Path("r/runs/e/mini-roberta/rte", f"rosa-{identity_hash(settings)}", "seed3")
    assert records.folder(settings) == expected
    assert records.new(settings, "c")["identity"]["seed"] == 3


def test_a_hub_name_adds_no_level_to_the_tree():
    settings = config(model=ModelConfig(name="org/model", source="hub", path="org/model"))
    assert records.folder(settings).parts[3] == "org--model"
    assert len(records.folder(settings).parts) == len(records.folder(config()).parts)
    with pytest.raises(RecordError, match=r"'\.\.'"):
        records.run_folder(Path("results"), records.identity(config()) | {"experiment": ".."})


# --- write and read --------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_and_new_ones_are_valid(tmp_path):
    for one in (record(config(), 0.5), records.new(config(), "python scripts/train.py")):
        records.write(tmp_path, one)
        assert records.read(tmp_path / records.RECORD) == one
    assert one["status"] == "running"
    assert sorted(p.name for p in tmp_path.iterdir()) == [records.RECORD]


def test_numbers_that_are_not_finite_become_null_and_the_file_is_strict_json(tmp_path):
    one = record(config(), math.nan, history=({"epoch": 1.0, "step": 2, "validation": {"loss": math.inf}},))
    records.write(tmp_path, one)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    loaded = json.loads((tmp_path / records.RECORD).read_text(), parse_constant=refuse)
    assert loaded["history"] == [{"epoch": 1.0, "step": 2, "validation": {"loss": None}}]
    assert math.isnan(records.score(loaded, "best"))
    assert math.isfinite(records.score(loaded, "last"))


def test_a_record_can_be_read_by_people_whatever_their_letters(tmp_path):
    records.write(tmp_path, record(config(), 0.5, warnings=["Zoë's café: 5 € 日本"]))
    assert "Zoë's café: 5 € 日本" in (tmp_path / records.RECORD).read_text(encoding="utf-8")


def test_what_json_cannot_hold_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"costs\.peak\[1\] is a complex"):
        records.write(tmp_path, record(config(), costs={"peak": [1, 2j]}))
    with pytest.raises(RecordError, match=r"key 3 in costs"):
        records.write(tmp_path, record(config(), costs={3: 1}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch, call):
    old = record(config(), 0.25)
    records.write(tmp_path, old)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RecordError, match=f"{tmp_path}.*No space left"):
        records.write(tmp_path, record(config(), 0.75))
    assert records.read(tmp_path / records.RECORD) == old
    assert [p.name for p in tmp_path.iterdir()] == [records.RECORD]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_really_full_device_is_reported(tmp_path, monkeypatch):
    old = record(config(), 0.25)
    records.write(tmp_path, old)
    opened = Path.open

    def on_full_device(self: Path, *arguments: Any, **options: Any) -> Any:
        return opened(Path("/dev/full"), "wb", **options) if self.suffix == ".tmp" else opened(self, *arguments)

    monkeypatch.setattr(Path, "open", on_full_device)
    with pytest.raises(RecordError, match="No space left"):
        records.write(tmp_path, record(config(), 0.75))
    monkeypatch.undo()
    assert records.read(tmp_path / records.RECORD) == old


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RecordError, match=str(tmp_path)):
            records.write(tmp_path, record(config(), 0.5))
    finally:
        tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=str(tmp_path / "file")):
        records.write(tmp_path / "file" / "run", record(config(), 0.5))


WRITER = """
import sys
from pathlib import Path
from rosa import records
folder = Path(sys.argv[1])
one = records.read(folder / records.RECORD)
for number in range(10**9):
    one["history"] = [{"epoch": 0.5, "step": number}] * 4000
    records.write(folder, one)
"""


@pytest.mark.slow
def test_a_killed_writer_never_leaves_half_a_record(tmp_path):
    records.write(tmp_path, record(config(), 0.5))
    path = tmp_path / records.RECORD
    generator = random.Random(0)
    for _ in range(4):
        before = path.stat().st_ino
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT)
        try:
            while path.stat().st_ino == before and writer.poll() is None:
                time.sleep(0.005)
            end = time.monotonic() + generator.uniform(0.05, 0.2)
            while time.monotonic() < end:
                records.read(path)
            assert writer.poll() is None, "the writer stopped by itself"
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        history = records.read(path)["history"]
        assert len(history) == 4000
        assert len({entry["step"] for entry in history}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema=2"),
        ({"status": "finished"}, "status='finished'"),
        ({"identity": {"experiment": "e"}}, "identity.model is missing"),
        ({"history": {}}, "history={}, expected a list"),
        ({"metrics": {}}, "metrics.best"),
        ({"config": {}}, "config.model is missing"),
    ],
)
def test_a_wrong_record_is_refused_with_its_path(tmp_path, change, message):
    wrong = record(config(), 0.5) | change
    with pytest.raises(RecordError, match=message):
        records.write(tmp_path, wrong)
    path = tmp_path / records.RECORD
    path.write_text(json.dumps(wrong))
    with pytest.raises(RecordError, match=message) as caught:
        records.read(path)
    assert str(path) in str(caught.value)


def test_a_record_needs_the_learning_rate_that_was_used(tmp_path):
    with pytest.raises(RecordError, match=r"config\.train\.lr='tuned'"):
        records.write(tmp_path, records.new(config(lr="tuned"), "c"))


@pytest.mark.parametrize("content", [b"", b'{"schema": 1', b"[1]", b"\xff\xfe\x00"])
def test_torn_and_foreign_files_are_reported_by_path(tmp_path, content):
    path = tmp_path / records.RECORD
    path.write_bytes(content)
    with pytest.raises(RecordError, match=str(path)):
        records.read(path)
    with pytest.raises(RecordError, match="absent"):
        records.read(tmp_path / "absent")


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_fill_in_options_that_are_younger_than_the_record():
    old = record(config(method=RosaConfig(rank=4)), 0.5)
    expected = records.settings(old)
    del old["config"]["method"]["sampling"]
    del old["config"]["train"]["warmup"]
    assert records.settings(old) == expected
    assert expected["method.rank"] == 4
    assert expected["train.warmup"] == 0.06


def test_settings_leave_out_what_changes_no_result():
    one, other = config(seed=0, threads=1, results_dir="a"), config(seed=1, threads=2, results_dir="b")
    assert identity_hash(one) == identity_hash(other)
    assert records.settings(record(one)) == records.settings(record(other))
    assert records.settings(record(one)) != records.settings(record(config(epochs=3)))


# --- find ------------------------------------------------------------------------------------------------------------


def evidence(results, *made):
    """Put records where committed ones are; the paths."""
    paths = [results / "records" / one["identity"]["experiment"] / str(number) for number, one in enumerate(made)]
    for path, one in zip(paths, made, strict=True):
        records.write(path, one)
    return paths


@pytest.mark.parametrize("collecting", [True, False])
def test_reading_leaves_the_search_for_cycles_as_it_was(tmp_path, collecting):
    put(tmp_path, record(config(), 0.5))
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        records.find(tmp_path)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_find_reads_both_trees_and_reports_what_it_cannot_read(tmp_path):
    made = [
        record(config(task, seed=seed, experiment=e), 0.5) for task in ("rte", "cola") for seed in (1, 0) for e in "ab"
    ]
    own, committed = ([one for one in made if one["identity"]["experiment"] == name] for name in "ab")
    paths = put(tmp_path, *own)
    evidence(tmp_path, *committed)
    found, problems = records.find(tmp_path)
    assert problems == []
    assert found == sorted(made, key=lambda one: tuple(one["identity"].values()))
    assert [records.is_committed(one) for one in found] == [one["identity"]["experiment"] == "b" for one in found]
    assert records.find(tmp_path, "a")[0] == [one for one in found if one["identity"]["experiment"] == "a"]

    paths[0].write_text("{")
    remaining, problems = records.find(tmp_path)
    assert remaining == [one for one in found if one["identity"] != own[0]["identity"]]
    assert [str(paths[0]) in str(problem) for problem in problems] == [True]
    assert records.find(tmp_path / "nothing") == ([], [])


@pytest.mark.parametrize("state", ["done", "failed", "running"])
def test_own_runs_come_before_committed_records_whatever_became_of_them(tmp_path, state):
    """A committed score never hides a failed run of this folder."""
    evidence(tmp_path, *(record(config(seed=seed), command=f"committed {seed}") for seed in (0, 1)))

    def commands(choice):
        return [one["command"] for one in records.find(tmp_path, evidence=choice)[0]]

    assert commands("instead") == commands("beside") == ["committed 0", "committed 1"]
    put(tmp_path, record(config(seed=0), status=state, command="own 0"))
    assert commands("instead") == commands("none") == ["own 0"]
    assert commands("beside") == ["own 0", "committed 1"]
    assert commands("alone") == ["committed 0", "committed 1"]


def test_a_copied_run_is_not_counted_twice(tmp_path):
    (path,) = put(tmp_path, record(config(), 0.5))
    shutil.copytree(path.parent, path.parent.with_name("seed0-copy"))
    found, problems = records.find(tmp_path)
    assert len(found) == 1
    assert "seed0-copy" in str(problems[0])


# --- the choice of a learning rate -----------------------------------------------------------------------------------


def test_select_lr_is_the_highest_mean_whatever_the_order():
    generator = random.Random(1)
    scores = {lr: [generator.random() for _ in range(3)] for lr in (1e-4, 5e-4, 1e-3, 2e-2)}
    made = [record(config(lr=lr, seed=seed), value) for lr, row in scores.items() for seed, value in enumerate(row)]
    expected = max(scores, key=lambda lr: sum(scores[lr]) / 3)
    for _ in range(5):
        generator.shuffle(made)
        chosen, grid = selection.select_lr(made, "best")
        assert chosen == expected
        assert list(grid) == sorted(scores)
        assert {lr: n for lr, (_, n) in grid.items()} == dict.fromkeys(scores, 3)
        assert grid[expected][0] == pytest.approx(sum(scores[expected]) / 3, abs=1e-15)


def test_select_lr_by_the_last_epoch_may_choose_another():
    made = [record(config(lr=lr), best) for lr, best in ((1e-3, 0.9), (1e-4, 0.1))]
    for one, last in zip(made, (0.2, 0.8), strict=True):
        one["metrics"]["last"]["validation"]["matthews_correlation"] = last
    assert selection.select_lr(made, "best")[0] == 1e-3
    assert selection.select_lr(made, "last")[0] == 1e-4
    with pytest.raises(RecordError, match="rule='first'"):
        selection.select_lr(made, "first")


def test_of_equal_learning_rates_the_smaller_wins():
    made = [record(config(lr=lr), 0.5) for lr in (1e-3, 1e-4, 1e-2)]
    assert selection.select_lr(made, "best")[0] == 1e-4


def test_a_diverged_seed_puts_a_learning_rate_last_and_a_killed_one_does_not():
    """The learning rate causes divergence, but not a killed process or a full disk."""
    infinite = {"type": "DivergedError", "message": "the loss is not finite", "traceback": ""}
    good = [record(config(lr=1e-4, seed=s), 0.3) for s in (0, 1)]
    diverged = [record(config(lr=1e-2, seed=0), 0.9), record(config(lr=1e-2, seed=1), math.nan)]
    stopped = [record(config(lr=2e-2, seed=0), 0.9), record(config(lr=2e-2, seed=1), status="failed", error=infinite)]
    killed = [record(config(lr=1e-3, seed=0), 0.95), record(config(lr=1e-3, seed=1), status="failed")]
    chosen, grid = selection.select_lr([*stopped, *diverged, *good], "best")
    assert chosen == 1e-4
    assert grid == {1e-4: (0.3, 2), 1e-2: (0.9, 1), 2e-2: (0.9, 1)}
    assert selection.select_lr([*killed, *stopped, *diverged, *good], "best")[0] == 1e-3
    with pytest.raises(RecordError, match="none of the 1 runs has a score"):
        selection.select_lr(killed[1:], "best")


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({1e-3: {1: 0.5, 2: 0.5, 3: 0.1}, 1e-2: {1: 0.45, 2: 0.45}}, 1e-3),  # its mean is higher, without seed 3
        ({1e-3: {1: 0.5, 2: 0.5, 3: 0.9}, 1e-2: {1: 0.55, 2: 0.55}}, 1e-2),  # its mean is lower, without seed 3
        ({1e-3: {1: 0.5, 2: 0.5, 3: 0.5}, 1e-2: {1: 0.9}}, 1e-3),  # fewer than half of the seeds
        ({1e-3: {1: 0.5, 2: 0.5}, 1e-2: {7: 0.9, 8: 0.9}}, 1e-3),  # no seed in common
        ({1e-3: {1: 0.5, 2: math.nan}, 1e-2: {7: 0.3}}, 1e-2),  # a diverged rate measures no other
        ({1e-3: {0: 0.5}, 1e-2: {0: 0.6}, 1e-1: {0: 0.4}}, 1e-2),
    ],
)
def test_learning_rates_are_compared_over_the_seeds_that_both_have(scores, chosen):
    made = [record(config(lr=lr, seed=seed), value) for lr, own in scores.items() for seed, value in own.items()]
    assert selection.select_lr(made)[0] == chosen
    for one in made:
        one["config"]["task"]["lower_is_better"] = True
        for rule in ("best", "last"):
            one["metrics"][rule]["validation"]["matthews_correlation"] *= -1
    assert selection.select_lr(made)[0] == chosen


def test_runs_that_differ_by_more_than_the_learning_rate_are_no_grid():
    made = [record(config(lr=1e-3), 0.5), record(config(lr=1e-4, epochs=3), 0.6)]
    with pytest.raises(RecordError, match=r"train\.epochs=10.*train\.epochs=3"):
        selection.select_lr(made, "best")


def grid_of(method: Any, scores: dict[float, float | str]) -> list[dict[str, Any]]:
    """The tuning runs of a method; a word in place of a score is a status."""
    made = []
    for lr, value in scores.items():
        settings = config(method=method, lr=lr, experiment="tuning")
        made.append(record(settings, status=value) if isinstance(value, str) else record(settings, value))
    return made


def test_tuned_lr_takes_the_winner_of_its_own_method(tmp_path):
    put(tmp_path, *grid_of(RosaConfig(rank=2), {1e-4: 0.1, 1e-3: 0.7, 1e-2: 0.3}))
    put(tmp_path, *grid_of(RosaConfig(rank=8), {1e-4: 0.9, 1e-3: 0.2}))
    put(tmp_path, *grid_of(LoraConfig(rank=2), {5e-5: 0.99}))
    wanted = config("rte", RosaConfig(rank=2), "tuned", seed=4)
    lr, kept = selection.tuned_lr(tmp_path, wanted)
    assert lr == 1e-3
    assert kept == {
        "experiment": "tuning",
        "task": "cola",
        "seed": 0,
        "split": "validation",
        "metric": "matthews_correlation",
        "rule": "best",
        "grid": [{"lr": x, "score": y, "status": "done"} for x, y in ((1e-4, 0.1), (1e-3, 0.7), (1e-2, 0.3))],
        "chosen": 1e-3,
        "committed": False,
    }
    json.dumps(kept, allow_nan=False)
    assert selection.tuned_lr(tmp_path, config("rte", RosaConfig(rank=8), "tuned"))[0] == 1e-4


def test_tuned_lr_counts_failed_and_diverged_runs_as_worst_and_lists_them(tmp_path):
    put(tmp_path, *grid_of(FullConfig(), {1e-4: -0.2, 1e-3: math.nan, 1e-2: "failed"}))
    lr, kept = selection.tuned_lr(tmp_path, config("rte", FullConfig(), "tuned"))
    assert lr == 1e-4
    assert [(entry["score"], entry["status"]) for entry in kept["grid"]] == [
        (-0.2, "done"),
        (None, "diverged"),
        (None, "failed"),
    ]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, r"python scripts/train\.py -m experiment=tuning"),
        ({1e-3: 0.5, 1e-4: "running"}, "1 of 2 runs are unfinished"),
        ({1e-3: "failed", 1e-4: math.nan}, "none of the 2 runs has a score"),
    ],
)
def test_tuned_lr_says_what_to_run_when_it_cannot_choose(tmp_path, scores, message):
    put(tmp_path, *grid_of(RosaConfig(), scores))
    put(tmp_path, *grid_of(LoraConfig(), {1e-3: 0.5}))
    with pytest.raises(RecordError, match=message) as caught:
        selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned"))
    assert "method.rank=8" in str(caught.value)


def test_tuned_lr_does_not_overlook_a_corrupt_record(tmp_path):
    paths = put(tmp_path, *grid_of(RosaConfig(), {1e-4: 0.5, 1e-3: 0.9}))
    paths[1].write_text("{")
    with pytest.raises(RecordError, match=str(paths[1])):
        selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned"))


def test_tuned_lr_takes_the_grid_whose_settings_are_the_runs(tmp_path):
    put(tmp_path, *grid_of(RosaConfig(), {1e-3: 0.5, 1e-2: 0.4}))
    put(tmp_path, *(record(config(lr=lr, experiment="tuning", epochs=1), lr) for lr in (1e-3, 1e-2)))
    assert selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned"))[0] == 1e-3
    assert selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned", epochs=1))[0] == 1e-2
    with pytest.raises(RecordError, match=r"train\.epochs"):
        selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned", epochs=2))  # as far from one as the other


def test_tuned_lr_takes_an_own_grid_before_a_committed_one(tmp_path, caplog):
    """Another precision and another data folder do not keep it from being found; nor does a failed run of it."""
    evidence(tmp_path, *grid_of(RosaConfig(), {1e-4: 0.9, 1e-3: 0.5}))
    lr, kept = selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned", precision="bf16"))
    assert (lr, kept["committed"]) == (1e-4, True)
    own = [config(lr=lr, experiment="tuning", precision="bf16") for lr in (1e-4, 1e-3)]
    put(tmp_path, record(own[0], status="failed"), record(own[1], 0.2))
    with caplog.at_level("INFO", "rosa"):
        lr, kept = selection.tuned_lr(tmp_path, config("rte", RosaConfig(), "tuned", precision="bf16"))
    assert (lr, kept["committed"]) == (1e-3, False)
    assert [cell["status"] for cell in kept["grid"]] == ["failed", "done"]
    assert (
        "train.lr=tuned is 0.001 for rosa on cola: the best of 2 learning rates of tuning; 1 of their runs"
        in caplog.text
    )


def test_a_sweep_reads_a_tuning_experiment_once(tmp_path, monkeypatch):
    put(tmp_path, *grid_of(RosaConfig(), {1e-4: 0.9}), *grid_of(LoraConfig(), {1e-3: 0.5}))
    put(tmp_path, *(record(config(seed=seed)) for seed in range(9)))
    read = []
    monkeypatch.setattr(store, "read", lambda path: read.append(path) or records.read(path))
    grids = selection.Grids(tmp_path)
    for seed in range(5):
        assert grids.tuned_lr(config("rte", RosaConfig(), "tuned", seed=seed))[0] == 1e-4
        assert grids.tuned_lr(config("rte", LoraConfig(), "tuned", seed=seed))[0] == 1e-3
    assert len(read) == 2


@pytest.mark.slow
def test_reading_records_loads_no_torch():
    code = "import sys, rosa.records, rosa.report.tables.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
