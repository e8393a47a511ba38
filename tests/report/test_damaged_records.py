"""A record that lacks keys: it is left out by its path, or every page can be made without them."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import make_figures
import pytest

from rosa import records
from rosa.records import Record, shape
from rosa.records.settings import NEEDED
from rosa.report.claims.page import page
from rosa.report.html.contents import contents
from rosa.report.html.render import html
from rosa.report.study import Study
from rosa.report.tables.experiment import costs, differences, tables
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.scores_csv import long_csv
from tests.conftest import ROOT
from tests.records.declared import undeclared

Place = tuple[str | int, ...]
STUDIES = {"evidence_glue": "cola", "evidence_e2e": "e2e"}
"""Experiment -> task of the records that are damaged; of texts and of a classifier."""


@functools.cache
def study(experiment: str) -> list[Record]:
    found, problems = records.find(ROOT / "results", experiment, evidence="alone")
    assert problems == []
    kept = [run for run in found if run["identity"]["task"] == STUDIES[experiment] and run["identity"]["seed"] < 3]
    return [run for run in kept if run["identity"]["method"] in ("lora", "rosa")]


def victim(experiment: str) -> int:
    """Of the study, a run that resampled."""
    return next(place for place, run in enumerate(study(experiment)) if run["resamples"])


def places(node: Any, path: Place = ()) -> Iterator[Place]:
    """Every key at every depth, those of the first object of a list among them; a key comes after those within it."""
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from places(inner, (*path, key))
            yield (*path, key)
    elif isinstance(node, list) and node:
        yield from places(node[0], (*path, 0))


def without(record: Any, *lost: Place) -> Any:
    """A copy of a record without some keys."""
    record = copy.deepcopy(record)
    for *path, key in lost:
        node = record
        for part in path:
            node = node[part]
        del node[key]
    return record


def problem(record: Any, folder: Path) -> str:
    """Why a record is left out; empty if it is read."""
    path = folder / "records" / "record.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    found, problems = records.find(folder)
    assert len(found) + len(problems) == 1
    assert all(str(one).startswith(f"{path}: ") for one in problems)
    return "".join(map(str, problems))


def optional(record: Any, folder: Path) -> list[Place]:
    return [lost for lost in places(record) if not problem(without(record, lost), folder)]


def make_everything(found: Sequence[Record]) -> None:
    """Every table, figure and page of the records."""
    for name in dict.fromkeys(run["identity"]["experiment"] for run in found):
        own = Study(found, name)
        for table in (*tables(own), *differences(own), *costs(own)[0]):
            markdown(table)
            latex(table)
        long_csv(own)
        for comparison in own.models.values():
            for kind in make_figures.FIGURES:
                for pictures, _ in make_figures.pictures(comparison, kind, ["headline", "loss"]):
                    assert all(picture.rows for picture in pictures)
    html(contents({Path(f"{number}.json"): run for number, run in enumerate(found)}))
    others = [] if found[0]["identity"]["experiment"] == "evidence_glue" else study("evidence_glue")
    page([*others, *found])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", STUDIES)
def test_a_record_without_a_key_that_its_readers_need_is_left_out(experiment: str, tmp_path: Path) -> None:
    whole = json.loads(json.dumps(study(experiment)[victim(experiment)]))
    needed = {("config", group, key) for group, kind in NEEDED.items() for key in kind.__required_keys__}
    assert problem(whole, tmp_path) == ""
    for lost in places(whole):
        damaged = without(whole, lost)
        said = problem(damaged, tmp_path)
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in lost).lstrip(".")
        if undeclared(damaged) or lost in needed:
            missing = f"{name} is missing" in said or f"KeyError({lost[-1]!r})" in said
            assert missing or f"{name}=None, but" in said, name
        elif lost[0] != "metrics":  # whose scores are data, and one of them the headline
            assert said == "", name


@pytest.mark.slow
@pytest.mark.parametrize("experiment", STUDIES)
def test_every_page_is_made_without_optional_keys(experiment: str, tmp_path: Path) -> None:
    """Without the innermost ones first, then without the objects that hold them."""
    found, place = study(experiment), victim(experiment)
    whole = json.loads(json.dumps(found[place]))
    lost = optional(whole, tmp_path)
    within = [one for one in lost if not any(other[: len(one)] == one and other != one for other in lost)]
    assert len(within) > 50
    for gone in (within, lost):
        make_everything([*found[:place], without(whole, *gone), *found[place + 1 :]])
    for run in (place, slice(None)):
        emptied = copy.deepcopy(found)
        for one in [emptied[run]] if isinstance(run, int) else emptied:
            one.update({key: type(value)() for key, value in one.items() if key in EMPTIED})  # type: ignore[typeddict-item]
        make_everything(emptied)


EMPTIED = ("params", "adapted", "costs", "environment", "diagnostics", "generation", "data", "model", "training",
           "history", "resamples")  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("params", "trainable"), "12", "params.trainable='12', expected integer"),
        (("params", "head"), True, "params.head=True, expected integer"),
        (("history", 0, "epoch"), None, "history[0].epoch=None, expected number"),
        (("history", 0, "validation"), [], "history[0].validation=[], expected an object"),
        (("history", 0, "validation", "loss"), "x", "history[0].validation.loss='x', expected number or null"),
        (("metrics", "last", "step"), 1.5, "metrics.last.step=1.5, expected integer"),
        (("resamples", 0, "subspace_moved"), [1.0, "x"], "resamples[0].subspace_moved[1]='x', expected number or null"),
        (("data", "splits", "train"), 3, "data.splits.train=3, expected an object"),
        (("tuning", "grid"), {}, "tuning.grid={}, expected a list"),
        (("tuning",), {}, "tuning.experiment is missing"),
        (("environment", "packages"), {"torch": 2}, "environment.packages.torch=2, expected text or null"),
        (("config", "task", "metrics"), "f1", "config.task.metrics='f1', expected a list"),
        (("config", "task", "evaluation"), [], "config.task.evaluation=[], expected at least one"),
        (("status",), "finished", "status='finished', expected one of running, done, failed"),
    ],
)
def test_a_value_of_another_kind_is_named(place: Place, value: Any, said: str, tmp_path: Path) -> None:
    record = copy.deepcopy(study("evidence_glue")[victim("evidence_glue")])
    node: Any = record
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    assert problem(record, tmp_path).endswith(f"record.json: {said}")


def test_a_run_whose_weights_overflow_has_a_record_and_pages(tmp_path: Path) -> None:
    """What was measured of its weights is not finite, which JSON has as null."""
    found, place = study("evidence_glue"), victim("evidence_glue")
    overflown = copy.deepcopy(found[place])
    overflown["resamples"][0]["subspace_moved"][0] = math.inf
    overflown["diagnostics"]["layers"][0] |= {"norm": math.inf, "effective_rank": math.nan, "relative_norm": math.inf}
    records.write(tmp_path, overflown)
    read = records.read(tmp_path / "record.json")
    assert read["resamples"][0]["subspace_moved"][0] is None
    make_everything([*found[:place], read, *found[place + 1 :]])


def test_keys_of_later_versions_are_let_be() -> None:
    assert shape.check(records.Evaluation)({"epoch": 1, "step": 2, "validation": {}}) == ""
    assert shape.check(records.Split)({"rows": 1, "sha256": "x", "later": None}) == ""
