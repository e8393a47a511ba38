"""Penn-Treebank tokens: by the Java program through pipes, and by the Python tokenizer that replaces it."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path

import pytest
from pycocoevalcap.tokenizer import ptbtokenizer

from rosa.evaluation.nlg import tokens, treebank
from tests.conftest import REAL_DATA

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java to compare with")

SAMPLES = [
    ("It isn't a pub; they CAN'T cook.", "it is n't a pub they ca n't cook"),
    ("You cannot eat, you won't, you're gonna leave.", "you can not eat you wo n't you 're gon na leave"),
    ("Family-friendly café, £20-25 (5 out of 5)!", "family-friendly café # 20-25 -lrb- 5 out of 5 -rrb-"),
    ("From £20 -25, £20.00, 1,000 or 3/5.", "from # 20 -25 # 20.00 1,000 or 3/5"),
    ("Near St. John's in the centre.Nice food., yes", "near st. john 's in the centre.nice food. yes"),
    ("At 5 p.m. it's \"The Punter\"... the kids' place --ok", "at 5 p.m. it 's the punter the kids place ok"),
    ("For 20-25 L. It opens", "for 20-25 l it opens"),
    ("For 20-25 L. Punter", "for 20-25 l. punter"),
    ("hors d'oeuvres at eight o'clock", "hors d'oeuvres at eight o'clock"),
    ("ÉCOLE É", "école é"),
    ("", ""),
    (" ... ", ""),
]


def tokenize(texts: list[str]) -> tokens.Tokenized:
    """Tokenize texts as hypotheses, after an unrelated reference."""
    return tokens.tokenize([["A pub."]], texts)


def test_samples_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for text, expected in SAMPLES:  # one by one: the next text's first word is not this one's
        found = tokenize([text])
        assert found.hypotheses == [expected]
        assert found.tokenizer == tokens.PYTHON


@needs_java
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_samples_with_java_in_any_locale(monkeypatch: pytest.MonkeyPatch, locale: str) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    found = tokenize([text for text, _ in SAMPLES])
    assert found.hypotheses == [expected for _, expected in SAMPLES]
    assert (found.tokenizer, found.references, found.problem) == (tokens.STANFORD, [["a pub"]], None)
    assert found.java is not None
    assert found.java[0].isdigit()


@needs_java
def test_the_java_programs_tokens_are_those_of_the_packages_own_wrapper() -> None:
    texts = [text for text, _ in SAMPLES] + ["a & b &amp; c @ x.com #1 50%", "“q” – it’s", "[x] {y}", "日本 ok🙂"]
    theirs = ptbtokenizer.PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert tokenize(texts).hypotheses == [theirs[i][0] for i in range(len(texts))]


ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\n"


def check_ends_of_lines(tokenizer: str) -> None:
    found = tokens.tokenize([[f"One{end}two.", "Three."] for end in ENDS], [f"Four{end}five" for end in ENDS])
    assert found.tokenizer == tokenizer
    assert found.references == [["one two", "three"]] * len(ENDS)
    assert found.hypotheses == ["four five"] * len(ENDS)


@needs_java
def test_the_end_of_a_line_within_a_text_is_a_space() -> None:
    check_ends_of_lines(tokens.STANFORD)


def test_the_end_of_a_line_within_a_text_is_a_space_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    check_ends_of_lines(tokens.PYTHON)


@needs_java
def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Path(ptbtokenizer.__file__).parent
    before = set(package.iterdir())
    for name in ("TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    assert tokenize(["A pub."]).tokenizer == tokens.STANFORD
    assert list(tmp_path.rglob("*")) == []
    # pycocoevalcap's own wrapper, which other tests run beside this one, has a file there for a second or two.
    for _ in range(100):
        if set(package.iterdir()) <= before:
            break
        time.sleep(0.1)
    assert set(package.iterdir()) <= before


@pytest.mark.slow
@pytest.mark.real
@needs_java
def test_the_rules_agree_with_java_on_every_e2e_reference() -> None:
    folder = REAL_DATA / "e2e"
    if not folder.is_dir():
        pytest.skip("the real E2E files are not beside the project")
    texts: dict[str, None] = {}
    for name in ("trainset", "devset", "testset_w_refs"):
        with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
            texts.update(dict.fromkeys(line["ref"] for line in csv.DictReader(file)))
    assert len(texts) > 49_000
    exact = tokens.tokenize([list(texts)], [])
    assert exact.tokenizer == tokens.STANFORD
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    ours = [" ".join(token for token in found if token not in dropped) for found in treebank.tokenize(list(texts))]
    differing = [pair for pair in zip(exact.references[0], ours, strict=True) if pair[0] != pair[1]]
    assert differing == []
