"""Which cases of a parametrized test are quick: ``slow_but`` names them, the mark ``spread`` has them chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest


def slow_but(quick: Sequence[Any], cases: Iterable[Any]) -> list[Any]:
    """The values of a parameter, with the mark ``slow`` on all that are not among the quick ones."""
    cases = list(cases)
    assert all(one in cases for one in quick), f"no such cases: {[one for one in quick if one not in cases]}"
    return [case if case in quick else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)


def mark_slow_cases(items: Iterable[pytest.Item]) -> None:
    """Mark the cases of each test with the mark ``spread`` slow, but for a few with every value of each parameter."""
    tests: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("spread"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        quick = few_with_every_value([case.callspec.params for case in cases])
        for number, case in enumerate(cases):
            if number not in quick:
                case.add_marker(pytest.mark.slow)


def few_with_every_value(cases: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of cases: of those with the most values that none before has, the first, until there are no such values.

    Args:
        cases: values by the names of the parameters. Values are the same if they are one object.
    """
    values = [{(name, id(value)) for name, value in case.items()} for case in cases]
    missing = set().union(*values)
    chosen: list[int] = []
    while missing:
        best = max(range(len(cases)), key=lambda number: len(values[number] & missing))
        chosen.append(best)
        missing -= values[best]
    return chosen
