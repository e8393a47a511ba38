"""Hypotheses, references and journals with arbitrary content are read, or refused with a RosaError."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rosa.errors import JournalError, ScoringError
from rosa.evaluation.generation.decode import one_line
from rosa.evaluation.generation.hypotheses import _earlier
from rosa.evaluation.generation.journal import Journal
from rosa.evaluation.nlg import read

fuzzed = settings(max_examples=150, deadline=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
LINES = st.lists(
    st.sampled_from(["a", "b c", "", "\0", "\u2028", "<b>", '"x",y', "\r", "é", "1e999", "\x85"]), max_size=8
)
CONTENT = st.binary(max_size=100) | LINES.map("\n".join).map(str.encode)


@fuzzed
@given(references=CONTENT, hypotheses=CONTENT)
@example(references=b"a" * 1_000_000 + b"\n", hypotheses=b"b\n")
def test_references_and_hypotheses(tmp_path: Path, references: bytes, hypotheses: bytes) -> None:
    paths = tmp_path / "references.txt", tmp_path / "hypotheses.txt"
    for path, content in zip(paths, (references, hypotheses), strict=True):
        path.write_bytes(content)
    try:
        corpus = read(*paths)
    except ScoringError as error:
        assert ".txt" in str(error)
        return
    assert len(corpus.hypotheses) == len(corpus.references)


@fuzzed
@given(content=st.binary(max_size=200) | st.lists(st.sampled_from(
    ['{"key": "a"}', '{"key": []}', "[]", "null", "{", '{"key": "a", "tokens": "x"}', "[" * 2000, "1e999"]
), max_size=4).map("\n".join).map(str.encode).map(lambda text: text + b"\n"))  # fmt: skip
@example(content=b"[" * 100_000 + b"\n")
@example(content=b'{"key": {}}\n')
def test_a_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    try:
        Journal(path)
    except JournalError as error:
        assert "journal" in str(error)


@fuzzed
@given(facts=st.binary(max_size=100) | st.sampled_from([b"[]", b"null", b'{"hypotheses": 1}', b"[" * 100_000]))
def test_facts_beside_hypotheses(tmp_path: Path, facts: bytes) -> None:
    (tmp_path / "test.txt").write_bytes(b"x\n")
    (tmp_path / "test.txt.json").write_bytes(facts)
    assert _earlier(tmp_path / "test.txt", {}) is None


@fuzzed
@given(text=st.text(max_size=60))
def test_a_hypothesis_is_one_line(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "\0" not in line
