"""Mini tasks whose outputs are right or wrong: word problems, meaning representations, SQL queries.

The columns are those of GSM8K, ViGGO and sql-create-context on the hub; all words and numbers are this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from rosa.errors import DataError
from rosa.mini.text import restaurants
from rosa.mini.text.checks import check_request
from rosa.mini.text.descriptions import WORDINGS
from rosa.mini.text.restaurants import SPLITS, split_of
from rosa.mini.text.tasks import ATTEMPTS

Row = dict[str, Any]

TYPES = sorted(WORDINGS["eatType"])
FOODS = sorted(WORDINGS["food"])
COUNTED = ("tables", "dishes", "menus", "guests", "meals")
NAMES = ("Fenford", "Tarlow", "Morvale", "Sundine", "Kerby", "Rilmont", "Bolven", "Halwick", "Dornley", "Jasmore")
SAID = ("food", "priceRange", "customer rating", "area", "familyFriendly")
"""Slots of a meaning representation beside the name; a sentence names the place's type as it likes."""
FACTS = (1, 3)
"""Fewest and most of them."""
TABLES = {"tavern": "taverns", "bistro": "bistros", "canteen": "canteens"}
TEXTS = {"food": FOODS, "area": sorted(WORDINGS["area"])}
"""Columns of text of a table, and their values."""
NUMBERS = ("price", "stars", "guests")
"""Columns of whole numbers."""
ASKED = {"MAX": "largest", "MIN": "smallest", "AVG": "mean"}
"""How a question says what an aggregate computes."""


def word_problem(rng: Random) -> Row:
    """One step of arithmetic with small numbers, and a solution that ends with ``####`` and the number."""
    place, what = f"{rng.choice(FOODS)} {rng.choice(TYPES)}", rng.choice(COUNTED)
    have = rng.randint(2, 9)
    other = rng.randint(1, min(4, have))
    sign, event, question = rng.choice(
        (
            ("+", f"gets {other} more", f"How many {what} does it have then?"),
            ("-", f"loses {other} of them", f"How many {what} are left?"),
            ("*", f"another has {other} times as many", f"How many {what} does the other have?"),
        )
    )
    number = {"+": have + other, "-": have - other, "*": have * other}[sign]
    return {
        "question": f"The {place} has {have} {what} and {event}. {question}",
        "answer": f"{have} {sign} {other} = {number}. #### {number}",
    }


def meaning(rng: Random) -> Row:
    """A sentence or two about a restaurant, and its facts: ``inform(name[Fenford], food[Greek], area[harbour])``."""
    slots = rng.sample(SAID, rng.randint(*FACTS))
    facts = {"name": rng.choice(NAMES)}
    facts |= {slot: rng.choice(sorted(values)) for slot, values in WORDINGS.items() if slot in slots}
    text = restaurants.descriptions(rng, facts, 1, 1)[0]
    return {"target": text, "meaning_representation": f"inform({restaurants.meaning_representation(facts)})"}


def query(rng: Random) -> Row:
    """A question about one table, the CREATE statement of that table, and a SELECT that answers the question."""
    (one, table), columns = rng.choice(sorted(TABLES.items())), rng.sample((*TEXTS, *NUMBERS), rng.randint(2, 4))
    kinds = ", ".join(f"{column} {'VARCHAR' if column in TEXTS else 'INTEGER'}" for column in columns)
    shown, given = rng.sample(columns, 2)
    if given in TEXTS:
        value = rng.choice(TEXTS[given])
        condition, where = f"{given} = '{value}'", f"whose {given} is {value}"
    else:
        number = rng.randint(2, 60)
        sign, words = rng.choice((("=", "is"), (">", "is more than"), ("<", "is less than")))
        condition, where = f"{given} {sign} {number}", f"whose {given} {words} {number}"
    selected, what = shown, shown
    if shown in NUMBERS and rng.random() < 0.5:
        name, said = rng.choice(sorted(ASKED.items()))
        selected, what = f"{name}({shown})", f"{said} {shown}"
    return {
        "context": f"CREATE TABLE {table} ({kinds})",
        "question": f"What is the {what} of the {one} {where}?",
        "answer": f"SELECT {selected} FROM {table} WHERE {condition}",
    }


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
