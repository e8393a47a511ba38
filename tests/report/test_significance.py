"""The paired t-test against LoRA: against SciPy's, against a table, and against chance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RosaConfig
from rosa.report.comparison import compare
from rosa.report.significance import compare_with, lora_of, paired_t
from tests.report.synthetic_records import config, record


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_p_value_is_that_of_scipy(n):
    generator = np.random.default_rng(n)
    own, other = generator.normal(size=n), generator.normal(size=n)
    expected = scipy.stats.ttest_rel(own, other).pvalue
    paired = compare_with("LoRA", dict(enumerate(own)), dict(enumerate(other)))
    assert paired.p == pytest.approx(expected, rel=1e-12)
    assert (paired.n, paired.difference) == (n, pytest.approx(np.mean(own - other)))


def test_the_critical_value_of_printed_tables():
    """Student's t with two degrees of freedom leaves 5 % outside of +-4.303."""
    deviation = 1.0
    for t, below in ((4.302, False), (4.304, True)):
        mean = t * deviation / np.sqrt(3)
        assert (paired_t([mean - 1, mean, mean + 1]) < 0.05) == below


def test_no_difference_is_found_one_time_in_twenty():
    generator = np.random.default_rng(7)
    p = [paired_t(generator.normal(size=3)) for _ in range(4000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("differences", [[], [0.3], [0.1, 0.1, 0.1], [0.0, 0.0], [0.1 + 0.2, 0.3]])
def test_where_the_test_says_nothing_there_is_no_p_value(differences):
    assert paired_t(differences) is None


def test_seeds_are_paired_by_their_number_and_the_others_left_out():
    paired = compare_with("LoRA", {0: 1.0, 1: 2.0, 5: 9.0}, {1: 1.5, 0: 0.9, 2: 0.0})
    assert (paired.n, paired.difference) == (2, pytest.approx(0.3))


def rows(*methods: MethodConfig, **train: int) -> list:
    found = [record(config("rte", method, seed=seed, **train)) for method in methods for seed in (0, 1)]
    return list(compare(found, "glue").rows)


def test_a_row_is_compared_with_the_lora_row_of_its_rank():
    found = rows(LoraConfig(rank=2), LoraConfig(rank=8), RosaConfig(rank=8), RosaConfig(rank=4), FullConfig())
    against = {row.label: (other.label if (other := lora_of(row, found)) else None) for row in found}
    assert against == {
        "LoRA r=2": None,
        "LoRA r=8": None,
        "ROSA r=8, every 2 epochs": "LoRA r=8",
        "ROSA r=4, every 2 epochs": None,
        "Full": None,
    }


def test_one_lora_row_serves_all_and_two_of_a_rank_serve_none():
    one = rows(LoraConfig(rank=2), RosaConfig(rank=8), IA3Config())
    assert {lora_of(row, one).label for row in one if row.method != "lora"} == {"LoRA r=2"}
    two = rows(LoraConfig(), LoraConfig(alpha=32.0), RosaConfig())
    assert [lora_of(row, two) for row in two] == [None, None, None]
