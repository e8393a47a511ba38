"""Files with arbitrary content are read, or refused with a DataError that names them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rosa.config import DataConfig, LocalTaskConfig, TaskConfig
from rosa.data import files
from rosa.data.local_files import read_split
from rosa.data.paragraphs import read_paragraphs
from rosa.errors import DataError, RosaError

fuzzed = settings(max_examples=150, deadline=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
HOSTILE = ["\0", "é", "\u2028", "\x85", '"', "'", ",", "\t", "\r", "\n", "\\", "<script>", "%", "1e999", "NaN", "-1",
           "0", "1", "[", "{", "}", "]", ":", "a", "b", "label", "text", "../../x", "!!python/object", "\ufeff",
           "=cmd()", " "]  # fmt: skip
TEXT = st.lists(st.sampled_from(HOSTILE), max_size=40).map("".join).map(str.encode)
CONTENT = st.one_of(st.binary(max_size=200), TEXT, TEXT.map(lambda body: b"text\tlabel\n" + body),
                    TEXT.map(lambda body: b"text,label\n" + body))  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "x"]), inner),
    max_leaves=8,
)
TASKS = [
    TaskConfig("own", texts=["text"], label="label", metrics=["accuracy"], headline="accuracy",
               evaluation=["validation"], labels=[]),
    TaskConfig("own", kind="regression", texts=["text"], label="label", metrics=["pearson"], headline="pearson",
               evaluation=["validation"], labels=[]),
]  # fmt: skip


def reads(path: Path, task: TaskConfig, skip: bool) -> None:
    """Read a file as both splits, and convert the splits to datasets."""
    data = DataConfig(source="files", train=str(path), validation=str(path), skip_malformed=skip)
    try:
        splits, facts = files.read(task, data)
    except DataError as error:
        assert str(path.name) in str(error)
        return
    json.dumps(facts)
    from rosa.data.base import resolved_task

    for split in splits.values():
        assert split.rows
        split.describe(resolved_task(task, facts))
        split.dataset(resolved_task(task, facts))


@fuzzed
@given(
    content=CONTENT, suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]), task=st.sampled_from(TASKS), skip=st.booleans()
)
@example(
    content=b"text,label\na," + b"1" * 5000 + b"\nb," + b"2" * 5000 + b"\nc," + b"2" * 5000,
    suffix=".csv",
    task=TASKS[0],
    skip=False,
)
@example(content=b"[" * 100_000, suffix=".jsonl", task=TASKS[0], skip=True)
@example(
    content=b'{"text": "\\ud800", "label": "a"}\n{"text": "x", "label": "b"}',
    suffix=".jsonl",
    task=TASKS[0],
    skip=False,
)
@example(
    content=b'{"text": "x", "label": 1e999}\n{"text": "y", "label": 2}', suffix=".jsonl", task=TASKS[1], skip=False
)
@example(content=b'{"text": "x", "label": ' + b"9" * 5000 + b"}\n", suffix=".jsonl", task=TASKS[1], skip=False)
def test_own_files(tmp_path: Path, content: bytes, suffix: str, task: TaskConfig, skip: bool) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    reads(path, task, skip)


@fuzzed
@given(rows=st.lists(JSON, max_size=6), task=st.sampled_from(TASKS), skip=st.booleans())
def test_json_of_any_shape(tmp_path: Path, rows: list[Any], task: TaskConfig, skip: bool) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    reads(path, task, skip)


@settings(fuzzed, max_examples=30)
@given(content=st.binary(max_size=300))
@example(content=b"PAR1" + b"\0" * 40 + b"PAR1")
def test_parquet_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    reads(path, TASKS[0], False)


GLUE = TaskConfig(
    "cola", texts=["text"], label="label", metrics=["accuracy"], headline="accuracy", evaluation=["validation"],
    labels=["0", "1"], local=LocalTaskConfig(texts=["text"], label="label"),
)  # fmt: skip
E2E = TaskConfig(
    "e2e", kind="generation", texts=["mr", "ref"], metrics=["perplexity"], headline="perplexity",
    evaluation=["validation"], prompt="{given}", lower_is_better=True, local=LocalTaskConfig(texts=["mr", "ref"]),
)  # fmt: skip


@fuzzed
@given(
    content=CONTENT | TEXT.map(lambda body: b"mr,ref\n" + body), task=st.sampled_from([GLUE, E2E]), skip=st.booleans()
)
def test_official_layouts(tmp_path: Path, content: bytes, task: TaskConfig, skip: bool) -> None:
    (tmp_path / "file").write_bytes(content)
    try:
        assert read_split(tmp_path, "file", task, skip).rows
    except DataError as error:
        assert "file" in str(error)


@fuzzed
@given(content=CONTENT | TEXT.map(lambda body: b"mr,ref\n" + body), suffix=st.sampled_from([".csv", ".txt"]))
def test_text_to_pretrain_on(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes(content)
    try:
        assert read_paragraphs(path)[0]
    except DataError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "cp1252", "euc_jis_2004"])
def test_other_encodings_name_the_line(suffix: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes("text,label\né,1\nß,0\n".encode(encoding, "replace"))
    with pytest.raises(DataError, match=rf"data{suffix}"):
        files.read(TASKS[0], DataConfig(source="files", train=str(path), validation=str(path)))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_line_of_a_hundred_megabytes(suffix: str, tmp_path: Path) -> None:
    """A very long text is read or refused; the message does not quote all of it."""
    path = tmp_path / f"data{suffix}"
    head, between = {".csv": (b"text,label\n", b","), ".tsv": (b"text\tlabel\n", b"\t")}.get(suffix, (b"", b""))
    line = b'{"text": "' + b"a" * 10**8 + b'"' if suffix == ".jsonl" else b"a" * 10**8 + between * 3
    path.write_bytes(head + line + b"\nb" + between + b"1\n")
    with pytest.raises(DataError) as error:
        files.read(TASKS[0], DataConfig(source="files", train=str(path), validation=str(path)))
    assert len(str(error.value)) < 1000


@fuzzed
@given(name=st.text(alphabet=string.printable + "é\0\u2028", min_size=1, max_size=30))
@example(name="../../../etc/passwd")
@example(name="a" * 5000)
@example(name="a\0b")
def test_names_of_files_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(RosaError):
        files.read(TASKS[0], DataConfig(source="files", train=f"{tmp_path}/no/{name}", validation=name))
