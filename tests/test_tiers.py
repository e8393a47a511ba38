"""Which tests are quick: the cases that are chosen of a test with the mark ``spread``, and those that are named."""

from __future__ import annotations

import itertools

import pytest

from tests.tiers import few_with_every_value, slow_but


def test_few_cases_have_every_value_of_each_parameter() -> None:
    names, sizes, ways = ("a", "b", "c"), (1, 2), ("x", "y", "z", "w")
    whole = [dict(zip(("name", "size", "way"), one, strict=True)) for one in itertools.product(names, sizes, ways)]
    chosen = [whole[number] for number in few_with_every_value(whole)]
    assert len(chosen) == 4
    for key, values in (("name", names), ("size", sizes), ("way", ways)):
        assert {case[key] for case in chosen} == set(values)


def test_all_cases_but_the_named_ones_are_slow() -> None:
    quick, slow, pair = slow_but(["a", (1, 2)], ["a", "b", (1, 2)])
    assert (quick, pair) == ("a", (1, 2))
    assert (slow.values, [mark.name for mark in slow.marks]) == (("b",), ["slow"])
    with pytest.raises(AssertionError, match="no such cases: \\['c'\\]"):
        slow_but(["c"], ["a"])
