"""Predictions of a finished run: for a split, for a user's file, and as the GLUE leaderboard's files."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rosa import records
from rosa.errors import DataError
from rosa.run import predict, reload, run
from tests.commands import Ended, command
from tests.composing import compose_config
from tests.conftest import Composer


def finished(composed: Composer, *overrides: str) -> Path:
    config = composed("train.epochs=1", "data.train_size=32", "train.keep=best", *overrides)
    run(config, "python scripts/train.py", progress=False)
    (path,) = Path(config.results_dir).glob(f"runs/*/*/{config.task.name}/*/*/{records.RECORD}")
    return path.parent


def call(*arguments: object) -> Ended:
    return command("scripts/predict.py", *arguments)


def test_a_split_and_a_file_have_every_row_with_its_probabilities(composed: Composer, tmp_path: Path) -> None:
    folder = finished(composed, "task=rte")
    done = call(folder, "--split", "validation", "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("entailment", "not_entailment")
    for row in rows:
        shares = {name: float(row[f"probability_{name}"]) for name in names}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(shares, key=shares.__getitem__)
    # The share of right answers is the record's score.
    right = np.mean([row["prediction"] == row["label"] for row in rows])
    assert right == pytest.approx(records.score(records.read(folder / records.RECORD)))

    own = tmp_path / "own.tsv"
    lines = [f"{row['sentence1']}\t{row['sentence2']}" for row in rows]
    own.write_text("\n".join(["sentence1\tsentence2", *lines]) + "\n")
    done = call(folder, "--file", own, "--out", tmp_path / "own.jsonl")
    assert done.returncode == 0, done.stderr
    again = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in again] == [row["prediction"] for row in rows]
    assert "label" not in again[0]
    done = call(folder, "--file", own, "--out", tmp_path / "own.jsonl")
    assert done.returncode == 2
    assert (
        f"error: {tmp_path / 'own.jsonl'}: exists; choose another place, or overwrite it (--overwrite)" in done.stderr
    )
    own.write_text("sentence1\tsentense2\na\tb\n")
    done = call(folder, "--file", own, "--out", tmp_path / "own.jsonl", "--overwrite")
    assert done.returncode == 2
    assert "did you mean sentense2" in done.stderr
    bad = tmp_path / "bad.jsonl"
    for second, said in (
        (r'"\ud800"', "half of a surrogate pair"),
        (r'"\u0000"', "NUL"),
        ("9" * 5000, "more than 4,300"),
    ):
        bad.write_text(f'{{"sentence1": "a", "sentence2": {second}}}\n')
        done = call(folder, "--file", bad, "--out", tmp_path / "bad.csv")
        assert done.returncode == 2
        assert f"error: {bad}:1: " in done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == 2


def test_the_leaderboards_files_of_real_layout_are_written_and_packed(composed: Composer, tmp_path: Path) -> None:
    """Runs on generated data, then tried on test files as the official download has them."""
    glue = tmp_path / "glue"
    header = {"CoLA": "index\tsentence", "STS-B": "index\tgenre\tsentence1\tsentence2"}
    for task, columns in header.items():
        (glue / task).mkdir(parents=True)
        lines = ["\t".join([str(row), *["a plain text"] * columns.count("\t")]) for row in range(5)]
        (glue / task / "test.tsv").write_text("\n".join([columns, *lines]) + "\n")
    folders = [finished(composed, f"task={task}") for task in ("cola", "stsb")]
    for folder in folders:
        record = records.read(folder / records.RECORD)
        record["config"]["data"] |= {"source": "local", "dir": str(glue)}
        records.write(folder, record)
    out, packed = tmp_path / "out", tmp_path / "submission.zip"
    out.mkdir()
    (out / "RTE.tsv").write_text("of another call")
    done = call(*folders, "--split", "test", "--out", out, "--zip", packed)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["CoLA.tsv", "STS-B.tsv"]  # and not the stale file
        cola, stsb = (archive.read(name).decode().splitlines() for name in archive.namelist())
    assert "CoLA.tsv: 5 rows; not the official test set, which has 1,063\n" in done.stdout
    assert cola[0] == stsb[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in cola[1:]] == list("01234")
    assert {line.split("\t")[1] for line in cola[1:]} <= {"0", "1"}
    assert all(0 <= float(line.split("\t")[1]) <= 5 for line in stsb[1:])
    done = call(folders[0], folders[0], "--split", "test", "--out", out)
    assert done.returncode == 2
    assert "CoLA.tsv: two of these runs are of task=cola; expected one run for each task" in done.stderr
    done = call(folders[0], "--split", "test", "--out", tmp_path / "test.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "test.csv").open(newline="", encoding="utf-8") as file:
        assert [row["sentence"] for row in csv.DictReader(file)] == ["a plain text"] * 5


def test_a_test_split_of_own_files_is_written_with_its_labels(composed: Composer, tmp_path: Path) -> None:
    own = []
    for split in ("train", "validation", "test"):
        path = tmp_path / f"{split}.csv"
        path.write_text("prediction,probability_a\n" + "".join(f"{split} {row},{'ab'[row % 2]}\n" for row in range(4)))
        own.append(f"data.{split}={path}")
    columns = ["task.texts=[prediction]", "task.label=probability_a", "task.evaluation=[validation,test]"]
    folder = finished(composed, "task=text_classification", "data=files", *own, *columns)
    done = call(folder, "--split", "test", "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == [f"test {row}" for row in range(4)]
    assert [row["probability_a"] for row in rows] == ["a", "b", "a", "b"]
    for row in rows:
        shares = [float(row["probability_a_"]), float(row["probability_b"])]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["prediction_"] == "ab"[int(np.argmax(shares))]
    done = call(folder, "--split", "test", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert (
        "the leaderboard is of GLUE's tasks, and this is task=text_classification; expected a name that" in done.stderr
    )


def test_generated_tasks_have_a_test_set_and_mnli_two(composed: Composer, tmp_path: Path) -> None:
    folder = finished(composed, "task=mnli")
    done = call(folder, "--split", "test", "--out", tmp_path / "out", "--zip", tmp_path / "z.zip")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    assert "left out: AX" in done.stderr
    lines = (tmp_path / "out" / "MNLI-mm.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "neutral", "contradiction"}
    with pytest.raises(DataError, match=r"--split dev: expected one of train, validation_matched"):
        predict.read(reload.load(folder), "dev")


@pytest.mark.parametrize(
    ("name", "values", "written"),
    [
        ("qnli", [0, 1], ["entailment", "not_entailment"]),
        ("rte", [1, 0], ["not_entailment", "entailment"]),
        ("wnli", [0, 1], ["0", "1"]),
        ("mrpc", [1, 0], ["1", "0"]),
        ("mnli", [2, 1], ["contradiction", "neutral"]),
        ("stsb", [-0.5, 5.25], ["0.000", "5.000"]),
    ],
)
def test_labels_are_written_as_the_leaderboard_wants_them(name: str, values: list, written: list[str]) -> None:
    task = compose_config(f"task={name}", "model=mini-roberta").task
    found = predict.Predictions([["a", "b"]], None, np.asarray(values), None)
    expected = [f"{row}\t{one}" for row, one in enumerate(written)]
    assert predict.leaderboard(task, found).splitlines() == ["index\tprediction", *expected]
