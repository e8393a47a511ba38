"""Exact match and execution of SQL queries, given the CREATE statements of their tables."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

STEPS = 1_000_000
"""Instructions of SQLite's machine after which a statement counts as failed."""
LARGEST = 1_000_000
"""Characters of a whole result; a query with a larger one counts as failed."""
LIMITS = {sqlite3.SQLITE_LIMIT_LENGTH: 10_000, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200}
"""Bytes of a value and of a pattern in a query: one instruction can otherwise make a value of a gigabyte."""
ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
"""SQLite actions that are allowed to a query, which is a model's output and thus not trusted."""

_CREATE = re.compile(r"\bCREATE\s+TABLE\b.*", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|[^'\"`();|]+|.", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"|\b(\d+(?:\.\d+)?)\b")
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
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
        context: text with ``CREATE TABLE`` statements, separated by semicolons; text after a ``|`` that is in neither
            quotes nor brackets is ignored.
        answer: a query.
        reference: the query that is right.
    """
    connection = sqlite3.connect(":memory:")
    connection.set_progress_handler(lambda: 1, STEPS)
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
    if _ORDER.search(outermost(reference)):
        return found[1] == wanted[1]
    return Counter(found[1]) == Counter(wanted[1])


def statements(context: str) -> list[str]:
    """The ``CREATE TABLE`` statements of a context (see :func:`agree`)."""
    found, depth = [""], 0
    for token in _TOKEN.findall(context):
        depth += (token == "(") - (token == ")")
        if token == "|" and depth <= 0:
            break
        if token == ";":
            found.append("")
            depth = 0
        else:
            found[-1] += token
    return [create[0] for create in map(_CREATE.search, found) if create is not None]


def outermost(query: str) -> str:
    """A query without what is in quotes or brackets."""
    kept, depth = [], 0
    for token in _TOKEN.findall(query):
        depth += (token == "(") - (token == ")")
        if depth <= 0 and token[0] not in "'\"`)":
            kept.append(token)
    return " ".join(kept)


def _fill(connection: sqlite3.Connection, context: str, reference: str) -> None:
    """Create the tables, and fill each with rows of the reference's literals and of three further values."""
    for statement in statements(context):
        try:
            connection.execute(statement)
        except (sqlite3.Error, UnicodeEncodeError):
            continue  # the reference cannot be run without it, which is noticed there
    texts = [single.replace("''", "'") or double or number for single, double, number in _LITERAL.findall(reference)]
    pool = [*dict.fromkeys(texts), "1", "2", "a"]
    known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
    for (table,) in connection.execute(known).fetchall():
        quoted = '"' + table.replace('"', '""') + '"'
        columns = connection.execute(f"PRAGMA table_info({quoted})").fetchall()
        keys = [number for number, _, kind, _, _, key in columns if key and kind.upper() == "INTEGER"]
        for shift in range(len(pool)):
            for stride in (0, 1):
                row: list[str | None] = [pool[(shift + stride * column) % len(pool)] for column in range(len(columns))]
                for key in keys:  # takes whole numbers only; for NULL, SQLite finds one
                    row[key] = row[key] if str(row[key]).isdecimal() else None
                _insert(connection, quoted, row)


def _insert(connection: sqlite3.Connection, table: str, row: Sequence[str | None]) -> None:
    """Insert a row, unless the table's constraints or types forbid it."""
    with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _result(connection: sqlite3.Connection, query: str) -> Result | None:
    """The result of a query; None if SQLite cannot run it within ``STEPS``, ``LIMITS`` and ``LARGEST``."""
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY)
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    rows, size = [], 0
    try:
        cursor = connection.execute(query)
        for row in cursor:
            rows.append(row)
            size += len(repr(row))
            if size > LARGEST:
                return None
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):
        return None
    return None if cursor.description is None else (len(cursor.description), rows)
