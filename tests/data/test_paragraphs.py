"""Pretraining text: references of an E2E file grouped by meaning, lines of plain text, and refused files."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest

from rosa.data.paragraphs import GLUE_TEXTS, GLUE_TRAIN, read_glue, read_paragraphs
from rosa.errors import DataError
from tests.composing import compose_config
from tests.conftest import REAL_DATA


@pytest.mark.parametrize("columns", ["mr,ref", "meaning_representation,human_reference", "id,mr,ref"])
def test_references_of_one_meaning_are_one_paragraph_wherever_they_stand(tmp_path: Path, columns: str) -> None:
    before = "7," if columns.startswith("id") else ""
    rows = ['"name[A], near[B]","A, near B, is ""fine""."', "name[C],C.", '"name[A], near[B]",Café £.', "name[C],  "]
    path = tmp_path / "some.CSV"
    content = "\r\n".join([columns, *(before + row for row in rows)]).encode("utf-8-sig")
    path.write_bytes(content)
    text, facts = read_paragraphs(path)
    assert text == (('A, near B, is "fine".', "Café £."), ("C.",))
    assert facts == {"file": "some.CSV", "sha256": hashlib.sha256(content).hexdigest()}


def test_a_line_of_plain_text_is_a_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    # U+2028 ends no line here, as in the files of the benchmark.
    path.write_bytes("One, two.\r\n\r\nThree\u2028four.\n".encode())
    assert read_paragraphs(path)[0] == (("One, two.",), ("Three\u2028four.",))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("One.\n")
    assert read_paragraphs(Path("~/text.txt"))[0] == (("One.",),)
    for read in (read_paragraphs, read_glue):
        with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/nowhere"):
            read(Path("~/nowhere"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"mr,text\nx,y\n", "a.csv:1: expected the columns mr and ref or meaning_representation and"),
        ("a.csv", b"", "a.csv:1: expected the columns mr and ref"),
        ("a.csv", b"mr,ref,ref\nx,y,z\n", "a.csv:1: the header has 2 columns named 'ref'"),
        ("a.csv", b'mr,ref\nx,"y\nz"\nx,y,z\n', "a.csv:4: 3 comma-separated fields, expected 2"),
        ("a.csv", b'mr,ref\nx,"y\n', "a.csv:2: not valid CSV"),
        ("a.csv", b"mr,ref\nx,\n", "a.csv: no text"),
        ("a.txt", b"\n \n", "a.txt: no text"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2: not UTF-8"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_paragraphs(tmp_path / name)


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "trainset.csv").write_text("mr,ref\n")
    with pytest.raises(DataError, match=r"train\.csv: no such file; its folder contains trainset\.csv"):
        read_paragraphs(tmp_path / "train.csv")


@pytest.mark.real
def test_the_real_training_file_is_read_whole() -> None:
    path = REAL_DATA / "e2e" / "trainset.csv"
    if not path.is_file():
        pytest.skip("the real E2E files are not beside the project")
    text, _ = read_paragraphs(path)
    # The challenge's own figures: 42,061 references of 4,862 meaning representations.
    assert sum(len(paragraph) for paragraph in text) == 42061
    assert len(text) == 4862
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.DictReader(file))
    assert any(paragraph[0] == first["ref"].strip() for paragraph in text[:1])
    assert not any("name[" in line for paragraph in text for line in paragraph)


def glue(folder: Path) -> Path:
    """A download of GLUE with a few rows."""
    files = {
        "CoLA": "gj04\t1\t\tIt is.\ngj04\t0\t*\tIs it is.\n",
        "SST-2": "sentence\tlabel\nit is . \t1\n",
        "MRPC": '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA "quote.\tIt is.\n',
        "RTE": "index\tsentence1\tsentence2\tlabel\n0\tOne.\tTwo.\tentailment\n",
        "STS-B": "index\tsentence1\tsentence2\tscore\n0\tTwo.\tThree.\t2.5\n",
    }
    for name, content in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "train.tsv").write_text(content, encoding="utf-8")
    return folder


def test_glue_gives_each_sentence_once_and_no_label(tmp_path: Path) -> None:
    text, facts = read_glue(glue(tmp_path / "glue"))
    expected = ["It is.", "Is it is.", "it is .", 'A "quote.', "One.", "Two.", "Three."]
    assert text == tuple((sentence,) for sentence in expected)
    names = ("CoLA", "SST-2", "MRPC", "RTE", "STS-B")
    whole = b"".join((tmp_path / "glue" / name / "train.tsv").read_bytes() for name in names)
    assert facts == {"glue_sha256": hashlib.sha256(whole).hexdigest()}


def test_a_bad_download_of_glue_is_refused(tmp_path: Path) -> None:
    folder = glue(tmp_path / "glue")
    with (folder / "RTE" / "train.tsv").open("a") as file:
        file.write("1\tOne.\n")
    with pytest.raises(DataError, match=r"train\.tsv:3: 2 tab-separated fields, expected 4"):
        read_glue(folder)
    (folder / "RTE" / "train.tsv").write_text("")
    with pytest.raises(DataError, match=r"RTE/train\.tsv: no rows"):
        read_glue(folder)
    (folder / "RTE" / "train.tsv").write_text("index\tsentence1\tlabel\n0\tOne.\tentailment\n")
    with pytest.raises(DataError, match=r"RTE/train\.tsv:1: the header has no column 'sentence2'.*model\.mini\.glue"):
        read_glue(folder)
    (folder / "MRPC" / "train.tsv").unlink()
    with pytest.raises(DataError, match=r"MRPC/train\.tsv: no such file"):
        read_glue(folder)


@pytest.mark.real
def test_the_real_sentences_of_glue_are_read_without_labels() -> None:
    folder = REAL_DATA / "glue"
    if not folder.is_dir():
        pytest.skip("the real GLUE files are not beside the project")
    text, _ = read_glue(folder)
    sentences = {sentence for (sentence,) in text}
    assert len(sentences) == len(text)
    assert not sentences & {"0", "1", "entailment", "not_entailment", "gj04", "main-news"}
    last = (folder / "CoLA" / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")[-1]
    assert last.split("\t")[3].strip() in sentences


def test_the_columns_of_glues_sentences_are_those_of_the_tasks() -> None:
    """The five files are read in two places: as paragraphs, and as the tasks of conf/task."""
    tasks = {}
    for name in ("cola", "sst2", "mrpc", "rte", "stsb"):
        local = compose_config(f"task={name}", "data=mini", "model=mini-roberta").task.local
        assert local.train == GLUE_TRAIN
        tasks[local.folder] = (tuple(local.texts), tuple(local.columns))
    assert tasks == GLUE_TEXTS
