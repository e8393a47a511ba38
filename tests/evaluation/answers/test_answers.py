"""Scores of right-or-wrong answers: final numbers, meaning representations, SQL queries."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rosa.errors import ScoringError
from rosa.evaluation import answers
from rosa.evaluation.answers import slots, sql
from rosa.utils.answers import final_number

# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solution", "number"),
    [
        ("She sold 48 + 24 = <<48+24=72>>72 clips. #### 72", "72"),
        ("#### 72", "72"),
        ("####72", "72"),
        ("text\n#### 1,234", "1234"),
        ("#### -5", "-5"),
        ("#### $10", "10"),
        ("#### -$10.50", "-10.5"),
        ("#### $-10.50", "-10.5"),
        ("#### 12.00", "12"),
        ("#### 100", "100"),
        ("#### .5", "0.5"),
        ("#### 18.", "18"),
        ("#### 7 apples", "7"),
        ("#### 25%", "25"),
        ("#### 3 #### 4", "3"),
    ],
)
def test_a_final_number_is_found_whatever_stands_around_it(solution: str, number: str) -> None:
    assert final_number(solution) == Decimal(number)


@pytest.mark.parametrize("solution", ["", "72", "The answer is 72.", "#### many", "### 72", "72 ####"])
def test_without_a_number_behind_the_mark_there_is_none(solution: str) -> None:
    assert final_number(solution) is None


def test_exact_match_of_numbers() -> None:
    found = answers.score(
        "number",
        ["q"] * 4,
        ["so #### 1,000", "#### 12.0", "twelve: 12", "#### 11"],
        [["#### 1000"], *[["a #### 12"]] * 3],
    )
    assert found.scores == {"exact_match": 0.5}
    assert (found.segments, found.references) == (4, 4)
    with pytest.raises(ScoringError, match=r"references\[1\] has no number behind ####"):
        answers.score("number", ["q"] * 2, ["#### 1"] * 2, [["#### 1"], ["one"]])


# --- slots -----------------------------------------------------------------------------------------------------------


def test_slots_are_pairs_however_often() -> None:
    assert slots.parse("inform(name[Dota  2], genres[MOBA, strategy], has_linux_release[])") == {
        ("name", "dota 2"): 1,
        ("genres", "moba, strategy"): 1,
        ("has_linux_release", ""): 1,
    }
    assert slots.parse("nothing of the kind") == {}


def test_slot_f1_and_exact_match_by_hand() -> None:
    references = [["inform(name[A], genre[B])"], ["request(year[1])"], ["confirm(name[C])"]]
    given = ["t"] * 3
    found = answers.score("slots", given, ["inform(genre[B], name[A])", "request(year[2])", ""], references)
    # Four pairs wanted, three answered, two shared.
    assert found.scores == {"exact_match": 0.0, "slot_f1": 2 * 2 / (3 + 4)}
    same = answers.score("slots", given, [f" {one[0]} " for one in references], references)
    assert same.scores == {"exact_match": 1.0, "slot_f1": 1.0}
    none = answers.score("slots", ["t"], ["x"], [["y"]])
    assert none.as_dict()["scorer"]["missing"] == {"slot_f1": "neither answers nor references have a slot"}


def test_of_several_references_the_nearest_counts() -> None:
    found = answers.score("slots", ["t"], ["i(a[1], b[2])"], [["i(a[1], c[3], d[4])", "i(b[2], a[1])", "i(a[1])"]])
    assert found.scores == {"exact_match": 0.0, "slot_f1": 1.0}


# --- SQL -------------------------------------------------------------------------------------------------------------

TABLES = "CREATE TABLE head (age INTEGER, name VARCHAR); CREATE TABLE dept (id INTEGER, head_age INTEGER) | How many?"


@pytest.mark.parametrize(
    ("answer", "exact", "execution"),
    [
        ("SELECT COUNT(*) FROM head WHERE age > 56", 1, 1),
        ("select  count(*) from HEAD where age > 56 ;", 1, 1),
        ("SELECT COUNT(age) FROM head WHERE age > 56", 0, 1),  # the same rows, by another text
        ("SELECT COUNT(*) FROM head WHERE 56 < age", 0, 1),
        ("SELECT COUNT(*) FROM head", 0, 0),
        ("SELECT COUNT(*), 1 FROM head WHERE age > 56", 0, 0),
        ("SELECT COUNT(*) FROM heads WHERE age > 56", 0, 0),
        ("SELECT COUNT(* FROM", 0, 0),
        ("", 0, 0),
        ("no SQL at all", 0, 0),
        ("DROP TABLE head", 0, 0),
        ("SELECT 1; DROP TABLE head", 0, 0),
        ("ATTACH DATABASE 'file.db' AS other", 0, 0),
        ("PRAGMA table_info(head)", 0, 0),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n", 0, 0),
        ("SELECT \x00", 0, 0),
    ],
)
def test_queries(answer: str, exact: int, execution: int) -> None:
    found = answers.score("sql", [TABLES], [answer], [["SELECT COUNT(*) FROM head WHERE age > 56"]])
    assert found.scores == {"exact_match": exact, "execution": execution}


def test_the_order_of_rows_counts_where_the_reference_orders() -> None:
    assert sql.agree(TABLES, "SELECT name FROM head ORDER BY name DESC", "SELECT name FROM head")
    assert not sql.agree(TABLES, "SELECT name FROM head ORDER BY name DESC", "SELECT name FROM head ORDER BY name")


@pytest.mark.parametrize(
    "query", ["DELETE FROM head RETURNING name", "UPDATE head SET age = 1 RETURNING name", "PRAGMA table_list"]
)
def test_a_query_that_does_more_than_read_its_tables_is_none(query: str) -> None:
    assert sql.agree(TABLES, query, "SELECT name FROM head") is False
    assert sql.agree(TABLES, "SELECT name FROM head", query) is None


def test_a_reference_that_does_not_run_is_left_out() -> None:
    found = answers.score("sql", [TABLES] * 2, ["SELECT name FROM head"] * 2, [["SELECT name FROM head"], ["SELECT"]])
    assert found.scores == {"exact_match": 0.5, "execution": 1.0}
    assert "1 references do not run" in found.options["execution"]
    none = answers.score("sql", ["no tables"], ["SELECT a FROM b"], [["SELECT a FROM b"]])
    assert none.scores == {"exact_match": 1.0, "execution": None}
    assert none.missing == {"execution": "no reference runs"}


def test_unequal_numbers_are_refused() -> None:
    for given, found, known in (([], [], []), (["a"], ["b", "c"], [["d"]])):
        with pytest.raises(ScoringError, match="expected as many of each"):
            answers.score("sql", given, found, known)
