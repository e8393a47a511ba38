"""scripts/score_e2e.py: its table, its JSON file, and its errors on bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rosa.evaluation import nlg
from tests.commands import script
from tests.composing import compose_config
from tests.conftest import ROOT

REFERENCES = "The Punter is a pub.\nA pub: The Punter.\n\nA café, £20-25.\n"
HYPOTHESES = "The Punter is a pub.\n\n"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two files, and no Java."""
    monkeypatch.setenv("PATH", "")
    paths = tmp_path / "references.txt", tmp_path / "hypotheses.txt"
    paths[0].write_text(REFERENCES, encoding="utf-8")
    paths[1].write_text(HYPOTHESES, encoding="utf-8")
    return paths


def test_the_table_says_what_is_missing_and_why(
    corpus: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = nlg.score(
        ["The Punter is a pub.", ""], [["The Punter is a pub.", "A pub: The Punter."], ["A café, £20-25."]]
    )
    assert script(monkeypatch, "score_e2e", *corpus) == 0
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.strip()}
    assert rows["BLEU"] == [f"{expected.bleu:.4f}"]
    assert rows["NIST"] == [f"{expected.nist:.4f}"]
    assert rows["ROUGE-L"] == [f"{expected.rouge_l:.4f}"]
    assert rows["CIDEr"] == [f"{expected.cider:.4f}"]
    assert rows["METEOR"][0] == "–"
    assert "default-jre-headless" in " ".join(rows["METEOR"])
    assert (rows["segments"], rows["references"]) == (["2"], ["3"])
    assert "rosa.evaluation.nlg.treebank" in said.out
    assert said.err == ""


def test_the_json_file_holds_everything_and_replaces_the_old_one(
    corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "scores.json"
    for _ in range(2):
        assert script(monkeypatch, "score_e2e", *corpus, "--json", out) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(found["scores"]) == ["bleu", "nist", "meteor", "rouge_l", "cider"]
    assert found["scores"]["meteor"] is None
    assert list(found["scorer"]) == ["tokenizer", "versions", "options", "missing"]
    assert found["scorer"]["options"]["bleu"].startswith("orders:1-4|case:lc")
    assert [path.name for path in out.parent.iterdir()] == ["scores.json"]


def test_meteor_can_be_left_out(
    corpus: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "score_e2e", *corpus, "--no-meteor") == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("METEOR")]
    assert row.split() == ["METEOR", "–", "not", "requested"]


ODD = {
    "Mr, Smith serves food À la carte.": ["Mr, Smith serves food à la carte."],
    '"A pub, near the river."': ['"A pub, near the river."', "A pub."],
    "": ["Food."],
    "Pub": ["A pub.", "Pub"],
    "a pub\rnear the river": ["a pub near the river"],
    "a pub\u2028near the river": ["a pub near the river"],
}
"""Outputs that look like CSV, are empty or of one word, or have a line end inside; and their references."""


def test_odd_lines_are_scored_as_mteval_scores_them(
    corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are of the functions of mteval-v13a, run in Perl."""
    corpus[0].write_bytes("\n\n".join("\n".join(group) for group in ODD.values()).encode() + b"\n")
    corpus[1].write_bytes("\n".join(ODD).encode() + b"\n")
    assert script(monkeypatch, "score_e2e", *corpus, "--json", tmp_path / "out.json") == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (found["segments"], found["references"]) == (6, 8)
    assert found["scores"]["bleu"] == pytest.approx(0.808931173204, abs=1e-11)
    assert found["scores"]["nist"] == pytest.approx(4.562810936551, abs=1e-11)


def test_what_looks_like_csv_can_be_said_to_be_text(
    corpus: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus[1].write_text('"a, b"\n"c, d"\n')
    assert script(monkeypatch, "score_e2e", *corpus) == 2
    assert "hypotheses.txt:1: this looks like a CSV file" in capsys.readouterr().err
    assert script(monkeypatch, "score_e2e", *corpus, "--format", "text") == 0


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ("a\0b\nb\n", "hypotheses.txt:1: a NUL character, which no text has"),
        ("a\nb\nc\n", "hypotheses.txt:3: no group of references"),
        ("mr,ref\nname[X],y\n", "hypotheses.txt:1: this looks like a CSV file"),
        ("", "hypotheses.txt: the file is empty"),
    ],
)
def test_bad_input_ends_in_two_lines(
    corpus: tuple[Path, Path],
    hypotheses: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus[1].write_text(hypotheses)
    assert script(monkeypatch, "score_e2e", *corpus, "--json", tmp_path / "out.json") == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 2
    assert said.out == ""
    assert not (tmp_path / "out.json").exists()


def test_a_json_file_that_cannot_be_written_is_named(
    corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "score_e2e", *corpus, "--json", tmp_path) == 2
    said = capsys.readouterr()
    assert f"--json {tmp_path}: is a folder, expected a file" in said.err
    assert said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hypotheses.txt", "references.txt"]


CSV = (
    'ref,mr\n"The Punter, ""a pub"", is near the river.","name[The Punter], area[riverside]"\n'
    'A café.,name[B]\n"Two\nlines.","name[The Punter], area[riverside]"\n'
)
"""Two inputs, one of them in two places, with a reference of two lines."""


def test_the_challenges_csv_gives_the_scores_of_the_same_references_as_text(
    corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "testset_w_refs.CSV"
    table.write_bytes(CSV.encode())
    corpus[0].write_text('The Punter, "a pub", is near the river.\nTwo lines.\n\nA café.\n', encoding="utf-8")
    corpus[1].write_text("The Punter is near the river.\nA café.\n", encoding="utf-8")
    said = []
    for references in (corpus[0], table):
        assert script(monkeypatch, "score_e2e", references, corpus[1]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    corpus[1].write_text("One line.\n")
    assert script(monkeypatch, "score_e2e", table, corpus[1]) == 2
    assert "hypotheses.txt:1: the file ends with hypothesis 1, but" in capsys.readouterr().err
    corpus[1].write_text("a\nb\nc\n")
    assert script(monkeypatch, "score_e2e", table, corpus[1]) == 2
    assert f"hypotheses.txt:3: no group of references for this hypothesis; {table} has 2" in capsys.readouterr().err
    table.write_text("mr,ref\nname[A],\n")
    assert script(monkeypatch, "score_e2e", table, corpus[1]) == 2
    assert f"error: {table}:2: ref is empty" in capsys.readouterr().err


def test_the_documented_command_scores_the_split_that_is_decoded() -> None:
    """Its references are the file of the test split, in the folder that the decoded run was trained on."""
    page = (ROOT / "docs" / "e2e.md").read_text(encoding="utf-8")
    commands = [line.partition("#")[0].split() for line in page.splitlines() if line.startswith("python scripts/")]
    train, decode, score = commands
    folder = next(word.removeprefix("data.dir=") for word in train if word.startswith("data.dir="))
    test = compose_config("task=e2e", "data=mini", "model=mini-gpt2").task.local.evaluation["test"]
    assert score[2:] == [f"{folder}/{test}", decode[decode.index("--out") + 1]]
