"""Counts of evaluation rows that the training split has too, by brute force; and splits with unofficial rows."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from rosa.config import DataConfig, LocalTaskConfig, TaskConfig
from rosa.data import base, load, overlap

TASK = TaskConfig(
    name="sst2", texts=["sentence"], labels=["no", "yes"], metrics=["accuracy"], headline="accuracy",
    local=LocalTaskConfig("SST-2", "train.tsv", {"validation": "dev.tsv"}, texts=["sentence"]),
)  # fmt: skip


def test_equal_rows_count_whatever_their_case_and_blanks() -> None:
    train = (["A  cat .", "B", "B"], ["C", "D", "E"])
    evaluation = (["a cat .", "B", "b ", "B"], ["C", "E", "D", "F"])
    assert overlap.in_train(train, evaluation) == 3


def test_texts_inside_training_texts_against_brute_force() -> None:
    drawn = random.Random(0)
    train = [" ".join(drawn.choices("ab", k=drawn.randint(1, 30))) for _ in range(60)]
    texts = [" ".join(drawn.choices("ab", k=drawn.randint(1, 12))) for _ in range(400)]
    expected = sum(len(text.split()) >= overlap.WORDS and any(f" {text} " in f" {t} " for t in train) for text in texts)
    assert 50 < expected < 350
    assert overlap.inside_train(train, {"validation": texts, "other": []}) == {"validation": expected, "other": 0}


def test_a_part_of_a_word_is_not_inside() -> None:
    assert overlap.inside_train(["one two three four fives"], {"v": ["one two three four five"]}) == {"v": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "SST-2").mkdir()
    rows = ["a fine film with a fine cast\t1", "no\t0", "dull\t0", "Dull\t1"]
    (tmp_path / "SST-2" / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    rows = ["a fine film with a fine\t1", "DULL\t0", "new\t1"]
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_the_record_has_the_overlap(folder: Path) -> None:
    split = load(TASK, DataConfig(source="local", dir=str(folder)), seed=0).facts["splits"]
    assert (split["validation"]["in_train"], split["validation"]["inside_train"]) == (1, 1)
    assert "in_train" not in split["train"]


def test_other_rows_than_the_official_ones_are_recorded_and_said(folder: Path) -> None:
    data = DataConfig(source="local", dir=str(folder))
    official = dataclasses.replace(TASK, rows={"train": 4, "validation": 3})
    facts = load(official, data, seed=0).facts
    assert facts["other_rows"] == {}
    assert base.warnings(official, facts) == []
    # A limit, or rows kept aside, are settings and leave the official rows official.
    assert load(official, dataclasses.replace(data, limit=3), seed=0, holdout=0.5).facts["other_rows"] == {}
    other = dataclasses.replace(TASK, rows={"train": 67349, "validation": 3})
    facts = load(other, data, seed=0).facts
    assert facts["other_rows"] == {"train": [4, 67349]}
    assert base.warnings(other, facts) == ["the rows are not the official ones of sst2: train 4 (official 67,349)"]


@pytest.mark.parametrize("task", ["CoLA", "MRPC", "RTE", "STS-B", "WNLI", "SST-2"])
def test_the_real_files_have_the_official_rows(glue_dir: Path, task: str) -> None:
    from tests.composing import compose_config
    from tests.config.test_tasks import GLUE

    name = next(name for name, row in GLUE.items() if row[5] == task)
    config = compose_config(f"task={name}", "model=mini-roberta", "data=local", f"data.dir={glue_dir}")
    assert load(config.task, config.data, 0).facts["other_rows"] == {}
