"""Records with arbitrary values are read or refused with a RecordError; names cannot lead out of the results folder."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rosa import records
from rosa.config import from_dict
from rosa.errors import RecordError, RosaError
from tests.report import synthetic_records as synthetic

fuzzed = settings(max_examples=150, deadline=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["done", "../../x", "validation", "accuracy", "<script>", "\0", "\\input{/etc/passwd}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
WHOLE: dict[str, Any] = json.loads(json.dumps(synthetic.record(synthetic.config(), best=0.5)))


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a record, down to three levels."""
    found = [path] if path else []
    if isinstance(node, dict) and len(path) < 3:
        for key, child in node.items():
            found += places(child, (*path, key))
    return found


def changed(path: tuple[Any, ...], value: Any, drop: bool) -> dict[str, Any]:
    record = copy.deepcopy(WHOLE)
    node = record
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return record


@fuzzed
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(content=b"[" * 100_000)
@example(content=b'{"a":' * 100_000)
@example(content=b'{"schema": 1e999}')
@example(content=b"9" * 10_000)
@example(content=b"\xff\xfe{\x00}\x00")
def test_a_file_that_is_no_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.json"):
        records.read(path)


@fuzzed
@given(path=st.sampled_from(places(WHOLE)), value=VALUES, drop=st.booleans())
def test_a_record_with_one_thing_changed(tmp_path: Path, path: tuple[Any, ...], value: Any, drop: bool) -> None:
    file = tmp_path / "runs" / "a" / "b" / "c" / "d" / "e" / "record.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(changed(path, value, drop)))
    found, problems = records.find(tmp_path)
    assert len(found) + len(problems) == 1
    for problem in problems:
        assert "record.json" in str(problem)


@fuzzed
@given(path=st.sampled_from([p for p in places(WHOLE) if p[0] == "config"]), value=VALUES, drop=st.booleans())
def test_a_configuration_from_a_record(path: tuple[Any, ...], value: Any, drop: bool) -> None:
    record = changed(path, value, drop)
    if not isinstance(record.get("config"), dict):
        return
    with contextlib.suppress(RosaError):
        from_dict(record["config"])


def test_depth_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecordError, match="too deep"):
        records.write(tmp_path, WHOLE | {"costs": {"x": deep}})
    assert list(tmp_path.iterdir()) == []


NAMES = ["..", ".", "../../x", "/etc/x", "a/../../b", "a\0b", "~", "-rf", "a" * 300, "con\n", "a\\..\\b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["experiment", "model", "task", "method", "hash"])
def test_names_cannot_leave_the_results_folder(key: str, name: str, tmp_path: Path) -> None:
    identity = WHOLE["identity"] | {key: name}
    try:
        folder = records.run_folder(tmp_path, identity)
    except RecordError:
        return
    assert (tmp_path / "runs").resolve() in folder.resolve().parents
    assert len(folder.relative_to(tmp_path).parts) == 6
    assert "\0" not in str(folder)


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "a\0b", "a\nb", ""])
def test_a_record_whose_experiment_is_no_name_is_left_out(name: str, tmp_path: Path) -> None:
    """Tables and figures are named after it."""
    file = tmp_path / "records" / "record.json"
    file.parent.mkdir()
    file.write_text(json.dumps(changed(("identity", "experiment"), name, drop=False)))
    found, (problem,) = records.find(tmp_path)
    assert found == []
    assert "identity.experiment=" in str(problem)
