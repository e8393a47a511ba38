"""Exact match and execution of SQL queries, given the CREATE statements of their tables."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

STEPS = 1_000_000
"""Instructions of SQLite's machine after which a query counts as failed."""
MOST_ROWS = 1000
"""Rows of a result that are compared."""
ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
"""SQLite actions that are allowed to a query, which is a model's output and thus not trusted."""

_CREATE = re.compile(r"CREATE\s+TABLE\b[^;|]*", re.IGNORECASE)
_LITERAL = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"|\b(\d+(?:\.\d+)?)\b")
Result = tuple[int, list[tuple[Any, ...]]]
"""The number of columns, and the rows."""


def normalised(query: str) -> str:
    """A query without what exact match ignores: white space, case, and a semicolon at the end."""
    return " ".join(query.lower().split()).rstrip("; ")


def score(
    given: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float | None], dict[str, str], dict[str, str]]:
    """Exact match, and the share of answers whose result is a reference's.

    The tables are filled with the literals of the reference, because on empty ones most queries agree. A query that
    SQLite cannot run is wrong; segments whose references it cannot run are left out of the execution.
    """
    right = same = run = 0
    for context, answer, known in zip(given, answers, references, strict=True):
        right += normalised(answer) in {normalised(reference) for reference in known}
        agrees = [agree(context, answer, reference) for reference in known]
        run += any(one is not None for one in agrees)
        same += any(one is True for one in agrees)
    options = {
        "exact_match": "the whole query; white space, case and a semicolon at the end do not count",
        "execution": f"same columns and rows on SQLite {sqlite3.sqlite_version}, in any order unless the reference "
        f"orders, on tables filled with the reference's literals; {len(answers) - run} references do not run",
    }
    if not run:
        return {"exact_match": right / len(answers), "execution": None}, options, {"execution": "no reference runs"}
    return {"exact_match": right / len(answers), "execution": same / run}, options, {}


def agree(context: str, answer: str, reference: str) -> bool | None:
    """Whether two queries have the same result on tables of this context; None if the reference cannot be run.

    Args:
        context: text with ``CREATE TABLE`` statements, separated by semicolons; text after ``|`` is ignored.
        answer: a query.
        reference: the query that is right.
    """
    connection = sqlite3.connect(":memory:")
    try:
        _fill(connection, context, reference)
        wanted = _result(connection, reference)
        found = None if wanted is None else _result(connection, answer)
    finally:
        connection.close()
    if wanted is None:
        return None
    if found is None or found[0] != wanted[0]:
        return False
    if "order by" in normalised(reference):
        return found[1] == wanted[1]
    return sorted(found[1], key=repr) == sorted(wanted[1], key=repr)


def _fill(connection: sqlite3.Connection, context: str, reference: str) -> None:
    """Create the tables, and fill each with rows of the reference's literals and of three further values."""
    for statement in _CREATE.findall(context.partition("|")[0]):
        try:
            connection.execute(statement)
        except sqlite3.Error:
            continue  # the reference cannot be run without it, which is noticed there
    texts = [single or double or number for single, double, number in _LITERAL.findall(reference)]
    pool = [*dict.fromkeys(texts), "1", "2", "a"]
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        quoted = '"' + table.replace('"', '""') + '"'
        width = len(list(connection.execute(f"PRAGMA table_info({quoted})")))
        for shift in range(len(pool)):
            for stride in (0, 1):
                row = [pool[(shift + stride * column) % len(pool)] for column in range(width)]
                connection.execute(f"INSERT OR IGNORE INTO {quoted} VALUES ({', '.join('?' * width)})", row)


def _result(connection: sqlite3.Connection, query: str) -> Result | None:
    """The result of a query; None if SQLite cannot run it within ``STEPS``."""
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY)
    connection.set_progress_handler(lambda: 1, STEPS)
    try:
        cursor = connection.execute(query)
        rows = cursor.fetchmany(MOST_ROWS)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):
        return None
    return None if cursor.description is None else (len(cursor.description), rows)
