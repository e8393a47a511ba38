"""The mini tasks whose outputs are right or wrong: disjoint, unique, and right by the scorers that judge a model."""

from __future__ import annotations

import re

import pytest

from rosa.errors import DataError
from rosa.evaluation import answers as scorers
from rosa.evaluation.answers import slots
from rosa.mini import text
from rosa.mini.text import answers
from rosa.utils.answers import final_number

COLUMNS = {"gsm8k": ["question", "answer"], "viggo": ["target", "meaning_representation"]}
COLUMNS["sql"] = ["context", "question", "answer"]


@pytest.mark.parametrize("task", answers.TASKS)
def test_rows_are_unique_disjoint_and_the_same_again(task: str) -> None:
    assert text.splits(task) == ("train", "validation", "test")
    rows = {split: text.examples(task, split, 150, seed=1) for split in text.splits(task)}
    assert rows["train"][:40] == text.examples(task, "train", 40, seed=1)
    keys = [tuple(row[column] for column in COLUMNS[task]) for found in rows.values() for row in found]
    assert len(set(keys)) == len(keys) == 450
    assert text.examples(task, "train", 5, seed=2) != rows["train"][:5]
    if task == "viggo":  # no restaurant is in two splits either
        facts = [{row["meaning_representation"] for row in found} for found in rows.values()]
        assert not facts[0] & facts[1] | facts[0] & facts[2] | facts[1] & facts[2]


def test_solutions_compute_what_they_say() -> None:
    for row in text.examples("gsm8k", "train", 200, seed=0):
        steps = re.findall(r"(\d+ [-+*] \d+) = (\d+)", row["answer"])
        assert len(steps) == 1
        assert all(eval(left) == int(right) for left, right in steps)
        assert final_number(row["answer"]) == int(steps[-1][1]) >= 0
        numbers = set(re.findall(r"\d+", row["question"]))
        assert set(re.findall(r"\d+", steps[0][0])) <= numbers


def test_meanings_have_the_slots_of_the_sentence() -> None:
    for row in text.examples("viggo", "train", 50, seed=0):
        found = dict(slots.parse(row["meaning_representation"]).keys())
        assert len(found) >= 2
        assert found["name"] in row["target"].lower()


def test_queries_run_on_their_tables() -> None:
    rows = text.examples("sql", "train", 100, seed=0)
    known = [[row["answer"]] for row in rows]
    found = scorers.score("sql", [row["context"] for row in rows], [row["answer"] for row in rows], known)
    assert found.scores == {"exact_match": 1.0, "execution": 1.0}
    assert "0 references do not run" in found.options["execution"]
    other = scorers.score(
        "sql", [row["context"] for row in rows], [row["answer"] + " AND 1 = 0" for row in rows], known
    )
    assert other.scores["execution"] < 0.5  # type: ignore[operator]  # the filled tables tell queries apart


@pytest.mark.parametrize(("split", "size", "said"), [("dev", 5, "split='dev' of sql"), ("train", 0, "size=0")])
def test_what_there_is_not_is_refused(split: str, size: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        text.examples("sql", split, size, 0)
