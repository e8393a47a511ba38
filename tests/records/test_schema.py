"""The types of a record: they fit committed records, the page is made from them, and none is unused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from rosa import records
from rosa.records import schema, schema_page
from tests.conftest import ROOT
from tests.records.declared import undeclared
from tests.report.synthetic_records import config
from tests.tiers import slow_but

COMMITTED = sorted((ROOT / "results" / "records").rglob("record.json"))


@pytest.mark.parametrize("every", slow_but([10], [10, 1]))
def test_committed_records_have_the_declared_keys_and_all_required_ones(every: int) -> None:
    assert len(COMMITTED) > 600
    wrong = {}
    for path in COMMITTED[::every]:
        found = undeclared(json.loads(path.read_text(encoding="utf-8")))
        if found:
            wrong[str(path)] = found[:3]
    assert wrong == {}


def test_every_optional_key_is_in_some_record_and_missing_from_another() -> None:
    """A key that every record has is required, and no key is declared that none has."""
    whole = [json.loads(path.read_text(encoding="utf-8")) for path in COMMITTED]
    for key in schema.Record.__optional_keys__:
        having = [key in record for record in whole]
        assert 0 < sum(having) < len(having), key


def test_a_new_record_is_empty_where_nothing_is_known_yet() -> None:
    new = records.new(config(), "command")
    assert undeclared(dict(new)) == []
    assert list(new) == list(schema.Record.__annotations__)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"costs": {"stepz": 1}}, "record.costs.stepz is not declared"),
        ({"params": {"trainable": 1, "head": 0}}, "record.params.total is missing"),
        ({"status": "finished"}, "record.status='finished'"),
        ({"warnings": [1]}, "record.warnings[0]=1 is no <class 'str'>"),
        ({"history": [{"epoch": 1.0, "step": 1, "validation": {"f1": "x"}}]}, "record.history[0].validation.f1='x'"),
        ({"tuning": {"experiment": "e"}}, "record.tuning"),
    ],
)
def test_the_check_sees_what_differs(change: dict[str, Any], said: str) -> None:
    record = copy.deepcopy(json.loads(COMMITTED[0].read_text(encoding="utf-8"))) | change
    assert any(said in problem for problem in undeclared(record))


def test_the_committed_page_is_written_from_the_types() -> None:
    assert (ROOT / "docs" / "records.md").read_text(encoding="utf-8") == schema_page.page()


def test_the_page_has_a_section_for_every_type() -> None:
    """Every declared type is used by a record."""
    page = schema_page.page()
    declared = {name for name, value in vars(schema).items() if isinstance(value, type) and hasattr(value, "__total__")}
    bases = {"Checkout", "TypedDict"}
    assert {name for name in declared - bases if f"\n## {name}\n" not in page} == set()


def test_the_kinds_of_annotations() -> None:
    assert schema.kinds(schema.Tuning | None) == (dict, type(None))
    assert schema.kinds(list[str]) == (list,)
    assert schema.kinds(schema.Status) == (str,)
    assert schema.kinds(int) == (int,)
    assert schema.RULES == ("best", "last")
    assert schema.by_split({"epoch": 1.0, "step": 2, "a": {"loss": 0.5}}) == {"a": {"loss": 0.5}}  # type: ignore
