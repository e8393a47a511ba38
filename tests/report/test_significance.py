"""The paired t-test, compared with SciPy, printed tables and simulations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.report.grouping import compare
from rosa.report.significance import (
    adjusted,
    by_size,
    compare_with,
    detectable_difference,
    deviation_interval,
    holm,
    lora_of,
    paired_t,
    t_interval,
)
from rosa.report.tables.differences import differences_table
from rosa.report.tables.markdown import markdown
from rosa.report.tables.results import results_table
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


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_that_of_scipy(n):
    differences = np.random.default_rng(n).normal(size=n)
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert t_interval(list(differences)) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    generator = np.random.default_rng(3)
    intervals = [t_interval(list(generator.normal(1.0, size=5))) for _ in range(4000)]
    assert np.mean([low < 1.0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("n", "tests"), [(3, 1), (5, 1), (10, 1), (3, 8), (5, 32)])
def test_a_detectable_difference_is_found_four_times_in_five(n, tests):
    generator = np.random.default_rng(n)
    shape = generator.normal(size=n)
    shape /= shape.std(ddof=1)
    true = detectable_difference(list(shape), tests)
    found = [paired_t(list(generator.normal(true, size=n))) < 0.05 / tests for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_a_margin_moves_the_test_and_not_the_interval():
    own, other = {1: 0.50, 2: 0.53, 3: 0.51}, {1: 0.52, 2: 0.52, 3: 0.53}
    paired, moved = (compare_with("LoRA", own, other, margin) for margin in (0.0, 0.03))
    differences = [own[seed] - other[seed] for seed in own]
    assert moved.p == pytest.approx(scipy.stats.ttest_1samp(differences, -0.03).pvalue)
    assert (moved.interval, moved.difference) == (paired.interval, paired.difference)
    # With one test, significantly above -margin is an interval whose lower end is above it.
    low, high = paired.interval
    for margin, significant in ((-low * 1.01, True), (-low * 0.99, False), (-high * 0.99, False), (-high * 1.01, True)):
        assert (compare_with("LoRA", own, other, margin).p < 0.05) == significant


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_with_no_true_difference_holm_finds_one_in_a_table_at_most_one_time_in_twenty():
    generator = np.random.default_rng(11)
    tables = [[paired_t(generator.normal(size=5)) for _ in range(20)] for _ in range(1000)]
    assert np.mean([min(holm(table)) < 0.05 for table in tables]) < 0.05 + 0.02
    assert np.mean([min(table) < 0.05 for table in tables]) > 0.5, "uncorrected, most tables have one"


@pytest.mark.parametrize("differences", [[], [0.3], [0.1, 0.1, 0.1]])
def test_where_the_test_says_nothing_there_is_no_interval(differences):
    assert t_interval(differences) is None
    assert detectable_difference(differences) is None


def rows(*methods: MethodConfig, **train: int) -> list:
    """Rows whose methods train 1000 parameters a rank, those without a rank more or fewer than any other."""
    found = [record(config("rte", method, seed=seed, **train)) for method in methods for seed in (0, 1)]
    for run in found:
        method = run["config"]["method"]
        counts = {"full": 10**6, "ia3": 100, "robust": 7000}
        run["params"]["trainable"] = counts.get(method["name"], 1000 * method.get("rank", 0))
    return list(compare(found, "glue").rows)


def test_a_row_is_compared_with_the_lora_row_of_its_rank_or_of_the_nearest_size():
    found = rows(
        *(LoraConfig(rank=2), LoraConfig(rank=8), RosaConfig(rank=8), RosaConfig(rank=4), RosaConfig(rank=5)),
        *(FullConfig(), IA3Config(), RobustConfig(rank=2), RobustConfig(rank=2, schedule="sparse_only")),
    )
    against = {row.label: (other.label if (other := lora_of(row, found)) else None) for row in found}
    assert against == {
        "LoRA r=2": None,
        "LoRA r=8": None,
        "ROSA r=8, every 2 epochs": "LoRA r=8",
        "ROSA r=4, every 2 epochs": "LoRA r=2",  # as far from either: the lower rank
        "ROSA r=5, every 2 epochs": "LoRA r=8",
        "Full": "LoRA r=8",
        "(IA)3": "LoRA r=2",
        "RoSA (robust) r=2 d=0.6%": "LoRA r=2",
        "RoSA (robust) d=0.6%, sparse part alone": "LoRA r=8",  # its rank is of a part that it lacks
    }
    assert by_size(found) == (
        " A row without a LoRA of its rank is compared with the one nearest in trained parameters: "
        "Full / RoSA (robust) d=0.6%, sparse part alone / ROSA r=5, every 2 epochs with LoRA r=8; "
        "(IA)3 / ROSA r=4, every 2 epochs with LoRA r=2."
    )


def test_no_row_vanishes_from_table_and_stars_where_there_are_several_ranks():
    """The table of differences has them, the star is theirs too, and both tables say which LoRA it is."""
    found = [
        record(config("rte", method, seed=seed), mean + seed / 50 + (seed == 1) / 100 * (mean > 0.5))
        for method, mean in ((LoraConfig(rank=2), 0.4), (LoraConfig(rank=8), 0.5), (FullConfig(), 0.8))
        for seed in (0, 1, 2)
    ]
    for run in found:
        run["params"]["trainable"] = {"full": 10**6}.get(run["identity"]["method"], 10**3)
    comparison = compare(found, "glue")
    tables = [results_table(comparison), differences_table(comparison)]
    assert [cell.text for cell in tables[1].rows[0]][:3] == ["Full", "RTE", "+40.3"]
    assert tables[0].rows[0][1].marks == ("*",)
    assert all("nearest in trained parameters: Full with LoRA r=2." in markdown(table) for table in tables)


def test_one_lora_row_serves_all_and_two_of_a_rank_serve_none():
    one = rows(LoraConfig(rank=2), RosaConfig(rank=8), IA3Config())
    assert {lora_of(row, one).label for row in one if row.method != "lora"} == {"LoRA r=2"}
    two = rows(LoraConfig(), LoraConfig(alpha=32.0), RosaConfig())
    assert [lora_of(row, two) for row in two] == [None, None, None]
    assert by_size(one) == ""
    assert by_size(two) == " Not compared, since several LoRA rows qualify: ROSA r=8, every 2 epochs."


def test_p_values_are_adjusted_where_there_is_a_test():
    found = [compare_with("LoRA", dict(enumerate(own)), {0: 0.0, 1: 0.0, 2: 0.0}) for own in
             ([0.1, 0.2, 0.1], [0.1], [0.1, 0.1, 0.1], [0.1, -0.1, 0.3])]  # fmt: skip
    p = [scipy.stats.ttest_1samp(own, 0).pvalue for own in ([0.1, 0.2, 0.1], [0.1, -0.1, 0.3])]
    assert adjusted(found) == [pytest.approx(2 * p[0]), None, None, pytest.approx(p[1])]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_of_a_deviation_is_that_of_the_chi_squared_distribution(n):
    low, high = scipy.stats.chi2.interval(0.95, n - 1)
    assert deviation_interval(n) == pytest.approx((np.sqrt((n - 1) / high), np.sqrt((n - 1) / low)), rel=1e-9)
