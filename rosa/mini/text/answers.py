"""Mini tasks whose outputs are right or wrong: word problems, meaning representations, SQL queries.

The columns are those of GSM8K, ViGGO and sql-create-context on the hub; all words and numbers are this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

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
EVENTS = {"+": "gets {} more", "-": "loses {} of them", "*": "another has {} times as many"}
"""What happens in a word problem, by the sign of its step."""
QUESTIONS = {
    "+": "How many {} does it have then?",
    "-": "How many {} are left?",
    "*": "How many {} does the other have?",
}
SAID = ("food", "priceRange", "customer rating", "area", "familyFriendly")
"""Slots of a meaning representation beside the name; a sentence names the place's type as it likes."""
FACTS = (1, 3)
"""Fewest and most of them."""
TABLES = {"tavern": "taverns", "bistro": "bistros", "canteen": "canteens"}
TEXTS = {"food": FOODS, "area": sorted(WORDINGS["area"])}
"""Columns of text of a table, and their values."""
NUMBERS = ("price", "stars", "guests")
"""Columns of whole numbers."""
VALUES = (2, 60)
"""Smallest and largest of them."""
QUERY_WORDS = {
    "MAX": "largest",
    "MIN": "smallest",
    "AVG": "mean",
    "=": "is",
    ">": "is more than",
    "<": "is less than",
}
"""How a question says what an aggregate computes, and how a number is compared."""


class Step(NamedTuple):
    """One step of arithmetic with small numbers, in signs and in words."""

    have: int
    sign: str
    other: int
    event: str
    """What happens to those who have something: *gets 3 more*."""

    @property
    def number(self) -> int:
        """What comes out."""
        return {"+": self.have + self.other, "-": self.have - self.other, "*": self.have * self.other}[self.sign]

    def __str__(self) -> str:
        return f"{self.have} {self.sign} {self.other} = {self.number}"


def step(rng: Random) -> Step:
    """A sum, a difference that is not negative, or a product."""
    have = rng.randint(2, 9)
    other = rng.randint(1, min(4, have))
    sign, event = rng.choice(sorted(EVENTS.items()))
    return Step(have, sign, other, event.format(other))


def word_problem(rng: Random) -> Row:
    """One step of arithmetic, and a solution that ends with ``####`` and the number."""
    place, what = f"{rng.choice(FOODS)} {rng.choice(TYPES)}", rng.choice(COUNTED)
    taken = step(rng)
    return {
        "question": f"The {place} has {taken.have} {what} and {taken.event}. {QUESTIONS[taken.sign].format(what)}",
        "answer": f"{taken}. #### {taken.number}",
    }


def meaning(rng: Random) -> Row:
    """A sentence or two about a restaurant, and its facts: ``inform(name[Fenford], food[Greek], area[harbour])``."""
    slots = rng.sample(SAID, rng.randint(*FACTS))
    facts = {"name": rng.choice(NAMES)}
    facts |= {slot: rng.choice(sorted(values)) for slot, values in WORDINGS.items() if slot in slots}
    text = restaurants.descriptions(rng, facts, 1, 1)[0]
    return {"target": text, "meaning_representation": f"inform({restaurants.meaning_representation(facts)})"}


class Selection(NamedTuple):
    """A table, a query on it, and what the query selects, in words."""

    table: str
    """Its CREATE statement."""
    query: str
    what: str
    """*largest price*."""
    where: str
    """*whose area is harbour*."""


def selection(rng: Random, table: str, said: Mapping[str, str]) -> Selection:
    """A value or an aggregate of one column, under a condition on another, told in the words of :data:`QUERY_WORDS`."""
    columns = rng.sample((*TEXTS, *NUMBERS), rng.randint(2, 4))
    kinds = ", ".join(f"{column} {'VARCHAR' if column in TEXTS else 'INTEGER'}" for column in columns)
    shown, given = rng.sample(columns, 2)
    if given in TEXTS:
        value = rng.choice(TEXTS[given])
        condition, where = f"{given} = '{value}'", f"whose {given} is {value}"
    else:
        number = rng.randint(*VALUES)
        sign = rng.choice("=><")
        condition, where = f"{given} {sign} {number}", f"whose {given} {said[sign]} {number}"
    selected, what = shown, shown
    if shown in NUMBERS and rng.random() < 0.5:
        name = rng.choice(("AVG", "MAX", "MIN"))
        selected, what = f"{name}({shown})", f"{said[name]} {shown}"
    created = f"CREATE TABLE {table} ({kinds})"
    return Selection(created, f"SELECT {selected} FROM {table} WHERE {condition}", what, where)


def query(rng: Random) -> Row:
    """A question about one table, the CREATE statement of that table, and a SELECT that answers the question."""
    one, table = rng.choice(sorted(TABLES.items()))
    made = selection(rng, table, QUERY_WORDS)
    return {
        "context": made.table,
        "question": f"What is the {made.what} of the {one} {made.where}?",
        "answer": made.query,
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
