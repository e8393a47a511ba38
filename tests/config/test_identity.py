"""The settings that change a run's identity and those that do not, for every key."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from rosa import records
from rosa.config import Config, from_dict, identity_hash, methods, to_dict
from rosa.records.settings import resolved_settings
from tests.conftest import ROOT, Composer

OUTSIDE = {
    # Parts of the folder's name.
    "seed", "experiment_name",
    # Where files lie. What is in them is compared by hash before a finished run is skipped.
    "results_dir", "cache_dir", "data.dir", "data.train", "data.validation", "data.test",
    "task.local.folder", "task.local.train", "task.local.evaluation", "task.local.columns", "task.local.texts",
    "task.local.label", "task.rows",
    # Where the learning rate came from; the rate itself counts.
    "train.tuning.experiment", "train.tuning.task", "train.tuning.seed",
    # How the work is done, logged and kept.
    "jobs", "train.device", "train.threads", "train.log_steps", "train.save_steps", "train.keep", "train.force",
    "train.fail_fast", "train.evaluation_batch_size", "train.forgetting", "decoding.batch_size",
    "logger.enabled", "logger.project", "logger.entity", "logger.mode",
}  # fmt: skip


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every dotted key of a configuration, with the dataclass that holds it and its name there."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", node, field.name


def other(value: Any) -> Any:
    """Another value of the same type; whether the key allows it does not matter for the hash."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 0.125 if isinstance(value, float) else value + 1
    if isinstance(value, dict):
        return {**value, "other": 3}
    return [*value, 7] if isinstance(value, list) else f"{value}x"


def example(method: str) -> Config:
    """A configuration of the method, with as little as a run needs."""
    plain: dict[str, Any] = {
        "model": {"name": "m", "source": "hub", "path": "org/m"},
        "task": {"name": "cola", "texts": ["sentence"], "labels": ["a", "b"], "metrics": ["f1"], "headline": "f1"},
        "train": {}, "data": {}, "logger": {}, "method": {"name": method},
    }  # fmt: skip
    return from_dict(plain)


KEYS = sorted({(name, key) for name in methods() for key, *_ in leaves(example(name)) if key.startswith("method.")}) + [
    ("rosa", key) for key, *_ in leaves(example("rosa")) if not key.startswith("method.")
]


@pytest.mark.parametrize(("method", "key"), KEYS)
def test_a_key_is_in_the_name_unless_it_changes_no_result(method: str, key: str) -> None:
    config = example(method)
    changed = copy.deepcopy(config)
    holder, name = next((node, name) for dotted, node, name in leaves(changed) if dotted == key)
    setattr(holder, name, other(getattr(holder, name)))
    then, now = (resolved_settings(to_dict(one)) for one in (config, changed))
    assert (identity_hash(changed) == identity_hash(config)) == (key in OUTSIDE)
    assert (then == now) == (key in OUTSIDE)


@pytest.mark.parametrize(
    ("method", "key"),
    [(name, key) for name, key in KEYS for dotted, node, at in leaves(example(name))
     if dotted == key and isinstance(getattr(node, at), dict)],
)  # fmt: skip
def test_the_order_of_a_users_keys_counts_in_the_name_and_in_the_settings(method: str, key: str) -> None:
    names, settings = set(), []
    for value in ({"*a": 2, "*b": 4}, {"*b": 4, "*a": 2}, {"*b": 4, "*a": 2.0}):
        config = example(method)
        holder, name = next((node, name) for dotted, node, name in leaves(config) if dotted == key)
        setattr(holder, name, value)
        names.add(identity_hash(config))
        found = resolved_settings(to_dict(config))
        settings += [found] if found not in settings else []
    assert len(names) == len(settings) == (1 if key in OUTSIDE else 2)


def test_every_key_outside_the_name_is_there() -> None:
    assert {key for _, key in KEYS} >= OUTSIDE


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (["data=local", "data.dir=D"], ["data=local", "data.dir=D/"]),
        (["data=local", "data.dir=D"], ["data=local", "data.dir=/elsewhere/D", "task.local.folder=cola"]),
        (["data=files", "data.train=a.csv", "data.validation=b.csv"],
         ["data=files", "data.train=x/a.csv", "data.validation=x/b.csv"]),
        (["model.path=here"], ["model.path=there"]),
        (["train.evaluation_batch_size=8"], []),
        (["method=lora", "method.alpha=1"], ["method=lora", "method.alpha=1.0"]),
        (["method=lora", "method.alpha=1"], ["method=lora", "method.alpha=1e0"]),
        (["train.lr=1"], ["train.lr=1.0"]),
        (["train.lr=1"], ["train.lr=1e0"]),
        (["train.lr=1e-3"], ["train.lr=0.001"]),
    ],
)  # fmt: skip
def test_one_run_written_in_two_ways_has_one_name(composed: Composer, one: list[str], another: list[str]) -> None:
    assert identity_hash(composed(*one)) == identity_hash(composed(*another))


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (["method.rank_pattern={query:2,self:4}"], ["method.rank_pattern={self:4,query:2}"]),
        (["model=hub", "model.name=m", "model.path=org/a"], ["model=hub", "model.name=m", "model.path=org/b"]),
        (["train.precision=fp32"], ["train.precision=bf16"]),
        (["data=local", "data.dir=D"], ["data=mini"]),
    ],
)  # fmt: skip
def test_other_runs_have_other_names(composed: Composer, one: list[str], another: list[str]) -> None:
    assert identity_hash(composed(*one)) != identity_hash(composed(*another))


def test_of_a_text_to_pretrain_on_it_counts_whether_there_is_one(composed: Composer) -> None:
    made, own, moved = (
        composed("model=mini-gpt2", "model.name=tiny", "model.path=''", "task=e2e", f"model.mini.text={text}")
        for text in ("''", "a.csv", "b/a.csv")
    )
    assert identity_hash(made) != identity_hash(own) == identity_hash(moved)
    with_glue, elsewhere = (
        composed(
            "model=mini-gpt2",
            "model.name=tiny",
            "model.path=''",
            "task=e2e",
            "model.mini.text=a",
            f"model.mini.glue={at}",
        )
        for at in ("a", "b/c")
    )
    assert identity_hash(own) != identity_hash(with_glue) == identity_hash(elsewhere)


@pytest.mark.slow
def test_committed_records_have_the_names_of_their_settings() -> None:
    paths = list((ROOT / "results" / "records").rglob(records.RECORD))
    assert paths
    for path in paths:
        record = records.read(path)
        assert record["identity"]["hash"] == identity_hash(from_dict(record["config"])), path
        assert path.parent.parent.name == f"{record['identity']['method']}-{record['identity']['hash']}"
        assert record["config"]["data"].get("dir", "") in ("", "DIR"), "a path of somebody's machine"
        assert "../" not in record["command"]
