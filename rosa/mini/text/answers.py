"""Mini tasks whose outputs are right or wrong: word problems, meaning representations, SQL queries.

The columns are those of GSM8K, ViGGO and sql-create-context on the hub; all words and numbers are this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from rosa.errors import DataError
from rosa.mini.text import lexicon, restaurants
from rosa.mini.text.checks import check_request
from rosa.mini.text.restaurants import SPLITS, split_of
from rosa.mini.text.tasks import ATTEMPTS

Row = dict[str, Any]

IRREGULAR = ("potato", "sandwich", "scarf")
ITEMS = tuple(noun.names[0] for noun in lexicon.NOUNS if noun.kind in lexicon.THINGS and noun.names[0] not in IRREGULAR)
"""Things whose plural ends in a plain s."""
PEOPLE = tuple(noun.names[0] for noun in lexicon.NOUNS if noun.kind == "person")
COLUMNS = ("owner", "colour", "weight", "price", "age", "town")
NUMBERS = ("weight", "price", "age")
"""Columns that hold numbers."""
WORDS = ("red", "green", "white", "grey", "north", "south", "old", "new")
AGGREGATES = {"COUNT": "How many {column} values are there", "MAX": "What is the largest {column}"}
AGGREGATES |= {"MIN": "What is the smallest {column}", "AVG": "What is the mean {column}"}


def word_problem(rng: Random) -> Row:
    """Two steps of arithmetic with small numbers, and a solution that ends with ``####`` and the number."""
    person, item = rng.choice(PEOPLE), rng.choice(ITEMS)
    have, more, times = rng.randint(2, 20), rng.randint(2, 20), rng.randint(2, 5)
    total = have + more
    begin = f"The {person} has {have} {item}s and gets {more} more."
    kind = rng.randrange(3)
    if kind == 0:
        question = f"{begin} Each costs {times} coins. How many coins do all of them cost?"
        steps, number = f"{have} + {more} = {total}. {total} * {times} = {total * times}.", total * times
    elif kind == 1:
        lost = rng.randint(1, total - 1)
        question = f"{begin} Then the {person} gives {lost} away. How many are left?"
        steps, number = f"{have} + {more} = {total}. {total} - {lost} = {total - lost}.", total - lost
    else:
        question = f"{begin} Another {rng.choice(PEOPLE)} has {times} times as many. How many is that?"
        steps, number = f"{have} + {more} = {total}. {times} * {total} = {total * times}.", total * times
    return {"question": question, "answer": f"{steps} #### {number}"}


def meaning(rng: Random) -> Row:
    """A sentence about a restaurant, and its facts: ``inform(name[Fenford], food[Greek])``."""
    facts = restaurants.restaurant(rng)
    text = restaurants.descriptions(rng, facts, 1, 1)[0]
    return {"target": text, "meaning_representation": f"inform({restaurants.meaning_representation(facts)})"}


def query(rng: Random) -> Row:
    """A question about one table, the CREATE statement of that table, and a SELECT that answers the question."""
    table, columns = rng.choice(ITEMS), rng.sample(COLUMNS, rng.randint(2, 4))
    kinds = {column: "INTEGER" if column in NUMBERS else "VARCHAR" for column in columns}
    context = f"CREATE TABLE {table} ({', '.join(f'{column} {kind}' for column, kind in kinds.items())})"
    shown, asked = rng.sample(columns, 2)
    if kinds[asked] == "INTEGER":
        value = rng.randint(2, 60)
        sign, words = rng.choice((("=", "is"), (">", "is more than"), ("<", "is less than")))
        condition, where = f"{asked} {sign} {value}", f"whose {asked} {words} {value}"
    else:
        word = rng.choice(WORDS)
        condition, where = f"{asked} = '{word}'", f"whose {asked} is {word}"
    ways = [("{column}", "What is the {column}")]
    if kinds[shown] == "INTEGER":
        ways += [(f"{name}({{column}})", words) for name, words in AGGREGATES.items()]
    chosen, words = rng.choice(ways)
    question = f"{words.format(column=shown)} of the {table} {where}?"
    answer = f"SELECT {chosen.format(column=shown)} FROM {table} WHERE {condition}"
    return {"context": context, "question": question, "answer": answer}


TASKS: dict[str, Callable[[Random], Row]] = {"gsm8k": word_problem, "viggo": meaning, "sql": query}


def examples(task: str, split: str, size: int, seed: int) -> list[Row]:
    """Rows of a task, with the hub's columns.

    A hash of the texts decides the split, so the splits are disjoint for all sizes and seeds, and no restaurant of an
    evaluation split occurs in the pretraining text. Rows are unique. A smaller ``size`` gives the first rows of a
    larger one.

    Raises:
        DataError: an unknown split, a size below 1, or more rows than there are.
    """
    check_request(task, split, SPLITS, size)
    rng = Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    rows: list[Row] = []
    while len(rows) < size:
        for _ in range(ATTEMPTS):
            row = TASKS[task](rng)
            decides = row.get("meaning_representation", "").removeprefix("inform(").removesuffix(")")
            key = "\n".join(row.values())
            if key not in seen and split_of(decides or key) == split:
                break
        else:
            raise DataError(f"size={size}: {task} {split} has no more than about {len(rows)} different examples")
        seen.add(key)
        rows.append(row)
    return rows
