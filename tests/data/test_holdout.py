"""The holdout of the training split: drawn by the seed, with equal texts on one side."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa import data
from rosa.config import DataConfig, LocalTaskConfig, TaskConfig
from rosa.data import e2e
from rosa.errors import DataError

PAIRS = TaskConfig(
    name="pairs",
    texts=["one", "two"],
    labels=["no", "yes"],
    metrics=["accuracy"],
    headline="accuracy",
    local=LocalTaskConfig(
        folder="pairs", evaluation={"validation": "dev.tsv"}, columns=["one", "two", "label"], texts=["one", "two"]
    ),
)
E2E = TaskConfig(
    name="e2e",
    kind="generation",
    texts=["mr", "ref"],
    metrics=["perplexity"],
    headline="perplexity",
    prompt="Input: {given} Output:",
    local=LocalTaskConfig(folder=".", train="train.csv", evaluation={"validation": "dev.csv"}, texts=["mr", "ref"]),
)


@pytest.fixture
def pairs(tmp_path: Path) -> DataConfig:
    """Sixty rows of forty different pairs of texts, twenty of which come twice."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [f"first {i % 40}\tsecond {i % 40 % 7}\t{i % 2}\n" for i in range(60)]
    (folder / "train.tsv").write_text("".join(rows))
    (folder / "dev.tsv").write_text("first x\tsecond x\t0\n")
    return DataConfig(source="local", dir=str(tmp_path))


def rows_of(split) -> list[tuple[str, str, int]]:
    return list(zip(split["text_a"], split["text_b"], split["label"], strict=True))


def test_the_two_parts_make_up_the_training_split_and_share_no_text(pairs):
    whole = data.load(PAIRS, pairs, seed=0)
    parted = data.load(PAIRS, pairs, seed=0, holdout=0.25)

    left, aside = rows_of(parted.train), rows_of(parted.evaluation["holdout"])
    assert sorted(left + aside) == sorted(rows_of(whole.train))
    texts_left, texts_aside = {row[:2] for row in left}, {row[:2] for row in aside}
    assert not texts_left & texts_aside
    assert (len(texts_left), len(texts_aside)) == (30, 10)
    assert left == [row for row in rows_of(whole.train) if row[:2] in texts_left], "in the order of the file"

    assert list(parted.evaluation) == ["holdout", "validation"]
    assert rows_of(parted.evaluation["validation"]) == rows_of(whole.evaluation["validation"])
    splits = parted.facts["splits"]
    assert (splits["train"]["rows"], splits["holdout"]["rows"]) == (len(left), len(aside))
    assert sum(splits["holdout"]["label_counts"].values()) == len(aside)


def test_the_draw_follows_the_seed(pairs):
    drawn = [rows_of(data.load(PAIRS, pairs, seed, holdout=0.25).evaluation["holdout"]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_limit_comes_first(pairs):
    pairs.limit = 30
    limited = data.load(PAIRS, pairs, seed=0)
    parted = data.load(PAIRS, pairs, seed=0, holdout=0.25)
    both = rows_of(parted.train) + rows_of(parted.evaluation["holdout"])
    assert sorted(both) == sorted(rows_of(limited.train))


def test_a_meaning_representation_is_on_one_side_with_all_its_references(tmp_path):
    lines = [f"name[{i % 10}],Reference {i}.\n" for i in range(40)]
    (tmp_path / "train.csv").write_text("mr,ref\n" + "".join(lines))
    (tmp_path / "dev.csv").write_text("mr,ref\nname[x],Dev.\n")
    loaded = e2e.load(E2E, DataConfig(source="local", dir=str(tmp_path)), seed=0, holdout=0.2)

    held = {group.mr: group.references for group in loaded.groups["holdout"]}
    assert len(held) == 2
    assert all(len(references) == 4 for references in held.values())
    assert not held.keys() & set(loaded.train["mr"])
    assert loaded.facts["splits"]["holdout"]["in_train"] == 0
    assert loaded.evaluation["holdout"].num_rows == 8


def test_a_share_that_leaves_nothing_is_refused(pairs):
    pairs.limit = 2
    with pytest.raises(DataError, match=r"data\.holdout=0\.9: cannot split 2 different training texts"):
        data.load(PAIRS, pairs, seed=0, holdout=0.9)
