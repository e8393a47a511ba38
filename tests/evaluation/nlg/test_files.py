"""Reading references and hypotheses: how they are matched, and errors that name file and line."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from rosa.evaluation.nlg import Corpus, ScoringError, read


def written(folder: Path, references: str | bytes, hypotheses: str | bytes) -> tuple[Path, Path]:
    paths = folder / "references.txt", folder / "hypotheses.txt"
    for path, content in zip(paths, (references, hypotheses), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return paths


def test_groups_and_lines(tmp_path: Path) -> None:
    found = read(*written(tmp_path, "a b\nc\n\nd\n", "x\ny\n"))
    assert found == Corpus(["x", "y"], [["a b", "c"], ["d"]])


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [
        ("a\nb\n\nc", "x\n\n"),  # no end of the last line, an empty hypothesis
        ("a\nb\n\nc\n\n", "x\n\n"),  # a blank line at the end
        ("a\r\nb\r\n\r\nc\r\n", "x\r\n\r\n"),
        ("\ufeffa\nb\n\nc\n", "\ufeffx\n\n"),
    ],
)
def test_ends_of_lines_and_byte_order_marks(tmp_path: Path, references: str, hypotheses: str) -> None:
    assert read(*written(tmp_path, references, hypotheses)) == Corpus(["x", ""], [["a", "b"], ["c"]])


def test_a_line_ends_with_a_newline_and_nothing_else(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0bd\x0ce\x1cf\u2029£é"
    assert read(*written(tmp_path, f"{text}\n\ng\n", f"h\n{text}\n")) == Corpus(["h", text], [[text], ["g"]])


def test_without_blank_lines_the_hypotheses_say_what_is_meant(tmp_path: Path) -> None:
    assert read(*written(tmp_path, "a\nb\n", "x\n")) == Corpus(["x"], [["a", "b"]])
    assert read(*written(tmp_path, "a\nb\n", "x\ny\n")) == Corpus(["x", "y"], [["a"], ["b"]])


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ("a\n\nb\nc\n\nd\n", "x\ny\n", r"hypotheses.txt:2: .*3 groups of references; group 3 begins in its line 6"),
        ("a\n\nb\n", "x\ny\nz\n", r"hypotheses.txt:3: no group of references.*has 2 groups.*has 3 lines"),
        ("a\n\n\nb\n", "x\ny\n", r"references.txt:3: a second blank line"),
        ("a\n\nb\n\n\n", "x\ny\n", r"references.txt:5: a second blank line"),
        ("\na\n", "x\n", r"references.txt:1: a blank line before the first reference"),
        ("", "x\n", r"references.txt: the file is empty; expected one reference per line"),
        ("a\n", "", r"hypotheses.txt: the file is empty; expected one hypothesis per line"),
        ("a\n", b"\xef\xbb\xbf", r"hypotheses.txt: the file is empty"),
        ("a\n\nb\n", "caf\u00e9\nx\n".encode("latin-1"), r"hypotheses.txt:1: not UTF-8: .*0xe9"),
        (b"a\n\nb\xa3\n", "x\ny\n", r"references.txt:3: not UTF-8: .*0xa3"),
        ("a\n", "mr,ref\nname[X],y\n", r"hypotheses.txt:1: this looks like a CSV file \(a header, 'mr,ref'\)"),
        ("a\n", '"MR"\t"ref"\n', r"hypotheses.txt:1: this looks like a CSV"),
        ("mr,ref\nx,y\n", "x\n", r"references.txt:1: this looks like a CSV"),
    ],
)
def test_bad_input_is_refused_by_file_and_line(
    tmp_path: Path, references: str | bytes, hypotheses: str | bytes, message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        read(*written(tmp_path, references, hypotheses))


TEXTS = ["The Punter, near the river.", 'A "pub", £20.', "No commas here.", ""]


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_a_csv_writer_makes_of_hypotheses_is_refused(tmp_path: Path, columns: int, quoting: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=quoting, lineterminator="\n")
    for text in TEXTS:
        writer.writerow(["name[X], food[Y]", text][-columns:])
    with pytest.raises(ScoringError, match=r"hypotheses.txt:1: this looks like a CSV"):
        read(*written(tmp_path, "a\n\nb\n\nc\n\nd\n", out.getvalue()))


def test_quotes_in_plain_text_are_no_csv(tmp_path: Path) -> None:
    texts = ['"The Punter", a pub, is near.', '"The Punter" is a pub, near.', '"A pub."', *TEXTS]
    references = "\n\n".join("a" for _ in texts)
    assert read(*written(tmp_path, references, "\n".join(texts) + "\n")).hypotheses == texts


@pytest.mark.parametrize(
    "first",
    [
        "Mr, Smith serves food.",
        "Mr, and Mrs.",
        '"The Punter, near the river."',
        "A line\rwith a CR.",
        "Two\u2028parts.",
    ],
)
def test_odd_text_is_no_csv_and_stays_one_line(tmp_path: Path, first: str) -> None:
    texts = [first, "No marks here."]
    assert read(*written(tmp_path, "a\n\nb\n", "\n".join(texts) + "\n")).hypotheses == texts


def test_what_looks_like_a_csv_is_read_where_it_is_said_to_be_text(tmp_path: Path) -> None:
    files = written(tmp_path, "mr,ref\n\nb\n", '"a, b"\n"c, d"\n')
    with pytest.raises(ScoringError, match="if it is text, --format text"):
        read(*files)
    corpus = read(*files, as_text=True)
    assert corpus.hypotheses == ['"a, b"', '"c, d"']
    assert corpus.references == [["mr,ref"], ["b"]]


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    references, _ = written(tmp_path, "a\n", "x\n")
    for wrong in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(ScoringError, match=re.escape(f"{wrong}: cannot be read: ")):
            read(references, wrong)
