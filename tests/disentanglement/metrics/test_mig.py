"""MIG and mutual information against a contingency table written out, and codes whose score is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from orthogan.disentanglement import discretise, entropies, mig, mutual_information_matrix
from tests.fixtures import toy


def by_loops(codes: np.ndarray, factors: np.ndarray, bins: int) -> np.ndarray:
    """The gap of each factor by an explicit table of counts in float64."""
    n, gaps = len(codes), []
    for j in range(factors.shape[1]):
        values = sorted(set(factors[:, j].tolist()))
        share = [sum(int(v == w) for v in factors[:, j]) / n for w in values]
        informations = []
        for i in range(codes.shape[1]):
            low, high = codes[:, i].min(), codes[:, i].max()
            table = [[0] * len(values) for _ in range(bins)]
            for x, y in zip(codes[:, i], factors[:, j], strict=True):
                place = min(int((x - low) / (high - low) * bins), bins - 1)
                table[place][values.index(y)] += 1
            total = 0.0
            for row in table:
                for column, count in enumerate(row):
                    if count:
                        total += count / n * math.log(count / n / (sum(row) / n * share[column]))
            informations.append(total)
        first, second = sorted(informations, reverse=True)[:2]
        gaps.append((first - second) / -sum(p * math.log(p) for p in share))
    return np.array(gaps)


def test_gaps_are_those_of_a_table_written_out() -> None:
    x, y = toy.noisy(800, (3, 5, 4), 4, 0.1, seed=3)
    found = mig(x, y)
    np.testing.assert_allclose(found.details["gaps"], by_loops(x, y, 20), atol=1e-12)
    assert float(found) == pytest.approx(by_loops(x, y, 20).mean())
    assert found.name == "mig[bins=20,n=800]"


def test_bins_are_the_published_ones() -> None:
    """The published rule, ``digitize(x, histogram(x, 20)[1][:-1])``, numbers from 1."""
    x = np.round(np.random.default_rng(0).standard_normal((500, 3)), 1)  # many values on edges
    expected = [np.digitize(column, np.histogram(column, 20)[1][:-1]) - 1 for column in x.T]
    np.testing.assert_array_equal(discretise(x, 20), np.stack(expected, axis=1))


def test_mutual_information_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 7, (300, 3)), rng.integers(0, 4, (300, 2))
    b[:, 0] = (a[:, 0] + b[:, 0]) // 3
    expected = [[mutual_info_score(p, q) for q in b.T] for p in a.T]
    np.testing.assert_allclose(mutual_information_matrix(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(entropies(b), [mutual_info_score(q, q) for q in b.T], atol=1e-12)


def test_exact_independence_gives_exactly_zero() -> None:
    a, b = np.divmod(np.tile(np.arange(21), 5), 7)
    assert mutual_information_matrix(a[:, None], b[:, None])[0, 0] == 0


def test_known_encoders_score_what_they_should() -> None:
    y = toy.factors(1000)
    scores = {name: float(mig(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] > 0.9
    assert scores["zeros"] == 0
    assert scores["duplicated"] == 0
    assert scores["row-permuted"] < 0.05
    assert scores["rotated"] < 0.2


def test_best_codes_are_named() -> None:
    y = toy.factors(1000, count=4)
    np.testing.assert_array_equal(mig(y[:, [2, 0, 3, 1]], y).details["best_codes"], [1, 3, 0, 2])


@given(st.integers(0, 10**6), st.permutations(range(4)), st.lists(st.integers(-20, 20), min_size=4, max_size=4))
@settings(max_examples=25, deadline=None)
def test_order_scale_and_names_of_values_do_not_matter(seed: int, order: list[int], powers: list[int]) -> None:
    x, y = toy.noisy(600, (3, 4), 4, 0.2, seed)
    expected = float(mig(x, y))
    assert float(mig(x[:, order] * 2.0 ** np.array(powers), y)) == pytest.approx(expected, abs=1e-12)
    assert float(mig(x, 7 - 2 * y[:, ::-1])) == pytest.approx(expected, abs=1e-12)
    assert float(mig(x * np.pi + 1, y)) == pytest.approx(expected, abs=0.02)  # a row on an edge may move
    assert 0 <= expected <= 1


def test_reported_bias_is_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(4000, 20)), rng.integers(0, 10, (4000, 3))
    found = mig(x, y).details
    np.testing.assert_allclose(found["bias"], 19 * 9 / 8000)
    assert found["mutual_information"].mean() == pytest.approx(19 * 9 / 8000, rel=0.05)
    np.testing.assert_allclose(found["relative_bias"], found["bias"] / found["entropy"])


def test_too_few_rows_are_refused_with_the_number_that_will_do() -> None:
    y = np.stack([np.arange(500) % 2, np.arange(500) % 40], axis=1)
    with pytest.raises(ValueError, match=r"500 rows are too few.*column 1 is 20%.*use at least 2010"):
        mig(y.astype(float), y)
    enough = np.concatenate([y] * 5)[:2010]
    assert float(mig(enough.astype(float), enough)) > 0
    assert float(mig(y.astype(float), y, max_bias=0.21)) > 0


def test_still_codes_and_dust_on_them_tell_nothing() -> None:
    _, y = toy.noisy(600, (3, 4), 2, 0.1, 0)
    dust = np.stack([np.full(600, 3.0), 1 + 1e-15 * y[:, 0]], axis=1)
    assert float(mig(dust, y)) == 0


def test_wrong_arrays_are_refused() -> None:
    x, y = toy.noisy(600, (3, 4), 2, 0.1, 0)
    for codes, factors, text in (
        (x[:, 0], y, r"\(N, d\), not float64 of shape \(600,\)"),
        (x[:, :1], y, "at least 2 codes"),
        (x, y[:500], "600 rows"),
        (x, y + 0.5, r"factors \[0, 1\] are not integers"),
        (x, y * [1, 0], r"factors \[1\] have the same value"),
        (np.where(x == x[0], np.nan, x), y, r"NaN or infinite values in columns \[0, 1\]"),
        (x.astype(str), y, "must be numbers"),
    ):
        with pytest.raises(ValueError, match=text):
            mig(codes, factors)
    with pytest.raises(ValueError, match="bins=1"):
        mig(x, y, bins=1)
