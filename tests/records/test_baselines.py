"""Records of baselines: the runs that share one, and refused files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from rosa.errors import RecordError
from rosa.records import baselines
from tests.report.synthetic_records import config, record


def test_runs_on_the_same_rows_share_a_record_and_others_do_not(tmp_path: Path) -> None:
    first, other_seed, other_rate = (record(config(seed=seed, lr=lr)) for seed, lr in ((0, 1e-3), (1, 1e-3), (0, 1e-2)))
    key = baselines.key_of_run(first)
    assert key is not None
    assert key == baselines.key_of_run(other_seed) == baselines.key_of_run(other_rate)
    changed = []
    for change in ({"sha256": "other"}, {"rows": 99}):
        one = copy.deepcopy(first)
        one["data"]["splits"]["validation"].update(change)
        changed.append(one)
    limited = copy.deepcopy(first)
    limited["data"]["limit"] = {"rows": 50, "of": 100, "seed": 0}
    held_out = copy.deepcopy(first)
    held_out["data"]["splits"]["holdout"] = {"rows": 10, "sha256": "train"}
    for one in (*changed, limited, held_out):
        assert baselines.path_of(tmp_path, baselines.key_of_run(one)) != baselines.path_of(tmp_path, key)
    # With rows drawn by the seed, each seed has its own.
    again = copy.deepcopy(limited)
    again["identity"]["seed"] = 1
    assert baselines.key_of_run(again) != baselines.key_of_run(limited)


def test_a_run_that_failed_before_its_data_has_none() -> None:
    failed = record(config(), status="failed", data={})
    assert baselines.key_of_run(failed) is None


def test_a_torn_record_is_named_and_the_others_are_found(tmp_path: Path) -> None:
    key = baselines.key_of_run(record(config()))
    assert key is not None
    whole = {
        "schema": 1, "method": "baseline", "model": None, "data": key, "forms": [], "command": "x",
        "environment": {}, "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    baselines.write(baselines.path_of(tmp_path, key), whole)
    folder = tmp_path / baselines.FOLDER
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text(json.dumps({**whole, "schema": 2}))
    (folder / "c.json").write_text(json.dumps({**whole, "forms": 3}))
    (folder / "d.json").write_text("[" * 100_000)
    (folder / "e.json").write_text("9" * 10_000)
    (folder / "f.json").write_bytes(b"\xff")
    form = {"name": "words", "seconds": 1.5, "scores": {"validation": {"accuracy": 0.5, "f1": None}}}
    changes = ({"name": 3}, {"seconds": None}, {"seconds": True}, {"scores": []}, {"scores": {"validation": 1}},
               {"scores": {"validation": {"accuracy": "x"}}})  # fmt: skip
    for number, change in enumerate(changes):
        (folder / f"g{number}.json").write_text(json.dumps({**whole, "forms": [form, {**form, **change}]}))
        with pytest.raises(RecordError, match=rf"g{number}\.json: forms\[1\] has not a name, seconds, and scores"):
            baselines.read(folder / f"g{number}.json")
    (folder / "h.json").write_text(json.dumps({**whole, "forms": [form]}))
    assert baselines.read(folder / "h.json")["forms"] == [form]
    (folder / "h.json").unlink()
    found, problems = baselines.find(tmp_path)
    assert list(found.values()) == [whole]
    assert list(found) == [baselines.hash_of(key)]
    names = [problem.path.name for problem in problems if problem.path]
    assert names == [f"{name}.json" for name in ("a", "b", "c", "d", "e", "f", "g0", "g1", "g2", "g3", "g4", "g5")]
    assert all(len(str(problem)) < 200 + len(str(folder)) for problem in problems)
    assert "recursion" not in str(problems[3])
    assert "set_int_max_str_digits" not in str(problems[4])
    with pytest.raises(RecordError, match=r"c\.json: forms=3, expected list"):
        baselines.read(folder / "c.json")
