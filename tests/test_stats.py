"""Means and intervals against tabulated quantiles of Student's t."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.stats import (
    Estimate,
    detectable,
    format_number,
    holm_adjusted,
    holm_levels,
    paired_difference,
    t_interval,
    t_test,
)

# two-sided 95 % quantiles, from printed tables, by degrees of freedom
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize("degrees", QUANTILES)
def test_the_interval_is_that_of_the_tables(degrees: int) -> None:
    values = [math.sin(3.7 * i) * (i + 1) for i in range(degrees + 1)]
    found = Estimate.of(values)
    half = QUANTILES[degrees] * statistics.stdev(values) / math.sqrt(len(values))
    assert found.n == degrees + 1
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.mean == pytest.approx(half, rel=3e-4)
    assert found.mean - found.low == pytest.approx(half, rel=3e-4)


def test_one_value_has_no_interval_and_says_so() -> None:
    found = Estimate.of([7.31])
    assert (found.low, found.high) == (None, None)
    assert str(found) == "7.31"
    assert found.bounds() == "n = 1, no interval"


def test_no_value_is_a_dash_and_not_a_zero() -> None:
    found = Estimate.of([])
    assert str(found) == "–"
    assert math.isnan(found.mean)


def test_values_that_are_not_finite_are_counted_and_never_left_out() -> None:
    found = Estimate.of([1.0, math.inf, math.nan])
    assert str(found) == "not finite in 2 of 3"
    assert math.isnan(found.mean)
    assert found.low is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([5.0, 5.0, 5.0], "5"),
        ([257984.0, 257984.0], "257,984"),
        ([7.0, 7.2, 7.4], "7.20 ± 0.50"),
        ([100.0, 200.0, 300.0], "200 ± 248"),
        ([1e-9, 3e-9, 2e-9], "2e-09 ± 2.5e-09"),
    ],
)
def test_digits_follow_the_interval(values: list[float], text: str) -> None:
    assert str(Estimate.of(values)) == text


def test_a_paired_difference_takes_equal_seeds_alone() -> None:
    found = paired_difference({0: 3.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 5: 100.0})
    assert found.values == (1.0, 2.0)
    assert found.mean == pytest.approx(1.5)


@given(st.dictionaries(st.integers(0, 20), st.floats(-100, 100), min_size=2, max_size=8), st.floats(-5, 5))
def test_luck_that_two_methods_share_cancels(values: dict[int, float], gain: float) -> None:
    found = paired_difference({seed: value + gain for seed, value in values.items()}, values)
    assert found.low is not None
    assert found.high is not None
    assert found.low - 1e-6 <= gain <= found.high + 1e-6
    assert found.high - found.low < 1e-6


def test_numbers_on_their_own() -> None:
    assert [format_number(x) for x in (3.0, 1234567.0, 0.123456, -2.5, math.inf)] == [
        "3",
        "1,234,567",
        "0.1235",
        "-2.5",
        "not finite",
    ]


def test_the_p_value_is_that_of_scipy() -> None:
    from scipy.stats import ttest_1samp

    values = [0.3, -1.2, 2.0, 0.7]
    for bound in (0.0, 1.5):
        assert t_test(values, bound) == pytest.approx(ttest_1samp(values, bound).pvalue)
    assert (t_test([1.0, 1.0]), t_test([1.0, 1.0], 1.0)) == (0.0, 1.0)


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    # a closed test rejects a hypothesis if every set of hypotheses that contains it is rejected (Marcus et al. 1976)
    indices = range(len(p_values))
    sets = [some for size in range(1, len(p_values) + 1) for some in itertools.combinations(indices, size)]
    levels, adjusted = holm_levels(p_values), holm_adjusted(p_values)
    for i in indices:
        closed = max(min(1.0, len(some) * min(p_values[j] for j in some)) for some in sets if i in some)
        assert adjusted[i] == pytest.approx(closed)
        if abs(closed - 0.05) > 1e-9:
            assert (p_values[i] <= levels[i]) == (closed <= 0.05)


def test_an_interval_at_another_confidence_excludes_what_the_test_rejects() -> None:
    found = Estimate.of([1.0, 1.4, 0.7, 1.1])
    p = t_test(found.values)
    wide, narrow = found.at(1 - 0.99 * p), found.at(1 - 1.01 * p)
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.low < 0 < narrow.low
    assert Estimate.of([1.0]).at(0.99) == Estimate.of([1.0])


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05), (10, 0.01)])
def test_the_detectable_difference_is_found_in_four_of_five_simulated_studies(n: int, alpha: float) -> None:
    size = detectable(n, alpha=alpha)
    values = np.random.default_rng(0).normal(size, 1.0, (20_000, n))
    low = QUANTILES[n - 1] if alpha == 0.05 else 3.250  # of the tables
    found = np.abs(values.mean(1)) / (values.std(1, ddof=1) / n**0.5) > low
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_power_needs_two_runs() -> None:
    with pytest.raises(ValueError, match="n = 1; at least 2 runs are needed"):
        detectable(1)


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_equal_values_have_their_own_value_as_mean_and_no_spread(n: int) -> None:
    for value in (0.1, 0.3, -1.1, 1e-9):  # the mean of 0.1, 0.1, 0.1 by summation is not 0.1
        assert t_interval([value] * n) == (value, value, value)
        assert t_test([value] * n, value) == 1.0
        assert t_test([value] * n) == 0.0
    assert str(Estimate.of([0.1] * n)) == "0.1"
