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
        ("#### −10", "-10"),
        ("#### ¥1,000", "1000"),
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


def test_numbers_of_many_digits_are_told_apart() -> None:
    assert final_number(f"#### 1{'0' * 40}1") != final_number(f"#### 1{'0' * 40}2")


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
    assert slots.parse("") == {}


def test_brackets_in_a_value_are_of_it_and_one_that_stays_open_is_no_slot() -> None:
    text = "inform(name[Nier [Remaster] (2010), Gold], rating[good (mostly)], year[2, genre[RPG])"
    values = {"name": "nier [remaster] (2010), gold", "rating": "good (mostly)", "genre": "rpg"}
    assert slots.parse(text) == dict.fromkeys(values.items(), 1)


def test_a_slot_that_is_repeated_counts_as_often_as_it_is_wanted() -> None:
    found = answers.score("slots", ["t"], ["i(a[1], a[1], a[1])"], [["i(a[1], a[1], a[2])"]])
    assert found.scores["slot_f1"] == 2 * 2 / (3 + 3)


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


def test_an_order_within_a_query_orders_no_result() -> None:
    """Of a subquery, or as a text."""
    for reference in (
        "SELECT name FROM head WHERE age IN (SELECT age FROM head ORDER BY age)",
        "SELECT name FROM head WHERE name <> 'order by'",
    ):
        assert sql.agree(TABLES, f"{reference} ORDER BY name DESC", reference)
        assert not sql.agree(TABLES, f"{reference} ORDER BY name DESC", f"{reference} order\n by name")


def test_rows_in_another_order_are_the_same_however_many() -> None:
    tables = "; ".join(f"CREATE TABLE {name} ({name}1 INTEGER)" for name in "abc")
    reference = "SELECT a1, b1, c1 FROM a, b, c WHERE a1 <> 5 OR b1 <> 7 OR c1 <> 9"
    assert sql.agree(tables, reference.replace("a, b, c", "c, b, a"), reference)
    assert not sql.agree(tables, f"{reference} LIMIT 1700", reference)


def test_rows_are_the_same_with_duplicates_and_without_a_value() -> None:
    assert not sql.agree(TABLES, "SELECT DISTINCT name FROM head", "SELECT name FROM head")
    missing = "SELECT NULL, name FROM head"
    assert sql.agree(TABLES, missing.replace("NULL", "NULLIF(1, 1)") + " ORDER BY name DESC", missing)
    assert not sql.agree(TABLES, missing.replace("NULL", "'None'"), missing)
    assert sql.agree(TABLES, "SELECT COUNT(*) * 1.0 FROM head", "SELECT COUNT(*) FROM head")


@pytest.mark.parametrize(
    "columns",
    [
        "id INTEGER PRIMARY KEY, name TEXT",
        "name TEXT, id INTEGER PRIMARY KEY AUTOINCREMENT",
        "id INT, name TEXT CHECK (LENGTH(name) > 1)",
        "name TEXT UNIQUE NOT NULL",
        "name TEXT, upper TEXT GENERATED ALWAYS AS ('|' || name)",
    ],
)
def test_tables_with_keys_and_constraints_are_filled_too(columns: str) -> None:
    tables = f"CREATE TABLE t ({columns}) | Who?"
    reference = "SELECT name FROM t WHERE name = 'Bo'"
    assert sql.agree(tables, f"{reference} OR 1 = 2", reference)
    assert sql.agree(tables, reference.replace("Bo", "Al"), reference) is False


def test_rows_that_a_table_cannot_hold_are_left_out() -> None:
    assert (
        sql.agree("CREATE TABLE t (id INTEGER) STRICT", "SELECT id FROM t", "SELECT id FROM t WHERE id <> 2") is False
    )


def test_a_quote_in_a_literal_is_filled_in_as_its_text() -> None:
    reference = "SELECT COUNT(*) FROM head WHERE name = 'O''Brien'"
    assert sql.agree(TABLES, "SELECT COUNT(*) FROM head WHERE name LIKE 'o_brien'", reference)
    assert not sql.agree(TABLES, reference.replace("Brien", "Brian"), reference)


def test_statements_end_where_no_quotes_or_brackets_are_open() -> None:
    context = (
        "x CREATE TABLE a (\"b|c\" TEXT DEFAULT ';'); create table [d] (e INT; CREATE  TABLE f (g INT)|CREATE TABLE h"
    )
    assert sql.statements(context) == [
        "CREATE TABLE a (\"b|c\" TEXT DEFAULT ';')",
        "create table [d] (e INT",
        "CREATE  TABLE f (g INT)",
    ]
    assert sql.agree(context, "SELECT g FROM f", "SELECT g FROM f")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT LENGTH(HEX(ZEROBLOB(20000)))",
        "SELECT 'a' LIKE '" + "%" * 300 + "'",
        "WITH RECURSIVE n(i, k) AS (SELECT 'x', 0 UNION ALL SELECT i || i, k + 1 FROM n WHERE k < 20) SELECT k FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT ZEROBLOB(9000) FROM n",
    ],
)
def test_a_query_that_makes_much_of_little_is_none(query: str) -> None:
    assert sql.agree(TABLES, "SELECT 1", query) is None


def test_half_a_character_is_no_error() -> None:
    """JSON files can have one, which SQLite does not take."""
    assert sql.agree("CREATE TABLE head (age \ud800)", "SELECT 1", "SELECT age FROM head") is None
    assert sql.agree(TABLES, "SELECT '\ud800'", "SELECT name FROM head") is False
    assert sql.agree(TABLES, "SELECT name FROM head", "SELECT name FROM head WHERE name = '\ud800'") is None


def test_a_context_that_never_ends_is_stopped() -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert sql.agree(f"CREATE TABLE t AS {endless}", "SELECT 1", "SELECT i FROM t") is None


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
