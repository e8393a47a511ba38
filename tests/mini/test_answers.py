"""The mini tasks whose outputs are right or wrong: disjoint, unique, and right by the scorers that judge a model."""

from __future__ import annotations

import re

import pytest

from rosa.config.model import CORPORA
from rosa.errors import DataError
from rosa.evaluation import answers as scorers
from rosa.evaluation.answers import slots
from rosa.mini import text
from rosa.mini.text import answers, answers_corpus
from rosa.mini.text.restaurants import SPLITS, split_of
from rosa.utils.answers import final_number
from tests.composing import compose_config

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


# --- the text to pretrain on ------------------------------------------------------------------------------------------


def test_every_generated_text_can_be_chosen() -> None:
    assert tuple(text.CORPORA) == CORPORA


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What model=mini-gpt2-answers is pretrained on."""
    mini = compose_config("task=gsm8k", "model=mini-gpt2-answers").model.mini
    assert mini.corpus == "answers"
    return [line for paragraph in text.CORPORA[mini.corpus](mini.sentences, mini.seed) for line in paragraph]


def held_out(task: str) -> list[dict[str, str]]:
    """Most of what the evaluation splits can hold, of several seeds."""
    return [row for split in text.splits(task)[1:] for seed in (0, 1) for row in text.examples(task, split, 300, seed)]


@pytest.mark.parametrize("task", answers.TASKS)
def test_the_corpus_has_no_evaluation_example(task: str, lines: list[str]) -> None:
    """Neither what is asked nor what is answered, as a text or in one; of SQL, tables can be alike, queries cannot."""
    written = "\n".join(lines)
    for row in held_out(task):
        for column in COLUMNS[task]:
            assert row[column] not in written, (task, column, row[column])


def test_the_corpus_has_no_answers_of_another_entity_either(lines: list[str]) -> None:
    """A record informs of nothing, a sum is no solution, nothing is asked, and the tables of the tasks are unknown."""
    assert not [line for line in lines if re.search(r"inform\(|[=.] *####|\?", line)]
    known = {name for pair in answers.TABLES.items() for name in pair}
    told = [said for said in answers.QUERY_WORDS.values() if said != "is"]
    for line in lines:
        assert not ("SELECT" in line and known & set(re.findall(r"\w+", line))), line
        assert not [said for said in told if f" {said} " in line], line


def test_without_the_filter_the_corpus_would_have_restaurants_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts_of(paragraphs: tuple[tuple[str, ...], ...]) -> set[str]:
        lines = [line for paragraph in paragraphs for line in paragraph]
        return {line[line.index("(") + 1 : -1] for line in lines if line.startswith(answers_corpus.ACTS)}

    found = facts_of(answers_corpus.corpus(4000, 1))
    assert len(found) > 300
    assert {split_of(facts) for facts in found} == {"train"}
    monkeypatch.setattr(answers_corpus.restaurants, "split_of", lambda meaning: "train")
    assert {split_of(facts) for facts in facts_of(answers_corpus.corpus.__wrapped__(4000, 1))} == set(SPLITS)


def test_the_corpus_has_the_numbers_brackets_and_keywords_of_the_answers(lines: list[str]) -> None:
    """Every word, number and sign of an answer but the names of tables and of the act."""
    seen = {piece for line in lines for piece in re.findall(r"\w+|[^\w\s]", line)}
    for task in answers.TASKS:
        for row in text.examples(task, "train", 300, seed=0):
            pieces = set(re.findall(r"\w+|[^\w\s]", row[COLUMNS[task][-1]]))
            assert pieces - seen <= {"inform", *answers.TABLES.values(), *answers.NAMES}, (task, pieces - seen)


def test_stories_and_sums_are_right() -> None:
    for paragraph in answers_corpus.corpus(3000, 5):
        for line in paragraph:
            for left, right in re.findall(r"(\d+ [-+*] \d+) = (\d+)", line):
                assert eval(left) == int(right), line
    told = [re.findall(r"\d+", line) for (line,) in (p for p in answers_corpus.corpus(3000, 5) if len(p) == 1)
            if " more." in line]  # fmt: skip
    assert len(told) > 30
    assert all(int(have) + int(more) == int(then) for have, more, then in told)


def test_the_corpus_depends_on_the_seed_alone_and_a_short_one_is_the_start_of_a_long_one() -> None:
    long, short = answers_corpus.corpus(1000, 3), answers_corpus.corpus(400, 3)
    assert long[: len(short)] == short
    assert sum(len(paragraph) for paragraph in long) in range(1000, 1003)
    assert answers_corpus.corpus(1000, 4) != long
    with pytest.raises(DataError, match="size=0"):
        answers_corpus.corpus(0, 0)


# --- bad requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "size", "said"), [("dev", 5, "split='dev' of sql"), ("train", 0, "size=0")])
def test_what_there_is_not_is_refused(split: str, size: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        text.examples("sql", split, size, 0)
