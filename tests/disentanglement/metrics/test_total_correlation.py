"""Scores of codes alone against textbook forms of the same distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.metrics import mutual_info_score

from orthogan.disentanglement import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mean_pairwise_mutual_information,
)


def correlated(rows: int, codes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, codes)) @ rng.standard_normal((codes, codes))


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_total_correlation_is_a_divergence_of_gaussians(seed: int, codes: int) -> None:
    x = correlated(60, codes, seed)
    s = np.cov(x, rowvar=False)
    d = np.diag(np.diag(s))
    divergence = 0.5 * (np.trace(np.linalg.inv(d) @ s) - codes + math.log(np.linalg.det(d) / np.linalg.det(s)))
    assert float(gaussian_total_correlation(x)) == pytest.approx(divergence, rel=1e-6, abs=1e-9)


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_wasserstein_correlation_is_the_distance_of_gaussians(seed: int, codes: int) -> None:
    x = correlated(60, codes, seed)
    s = np.cov(x, rowvar=False)
    d = np.diag(np.diag(s))
    distance = np.trace(s + d - 2 * np.real(sqrtm(sqrtm(s) @ d @ sqrtm(s))))
    found = gaussian_wasserstein_correlation(x)
    assert float(found) == pytest.approx(distance, rel=1e-5, abs=1e-6)
    assert found.details["normalised"] == pytest.approx(distance / np.trace(s), rel=1e-5, abs=1e-6)


def test_two_codes_of_known_correlation() -> None:
    a, b = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 3)))[0].T[:2]
    a, b = a - a.mean(), b - b.mean()
    b = b - a * (a @ b) / (a @ a)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    x = np.stack([a, 0.6 * a + 0.8 * b], axis=1)
    assert float(gaussian_total_correlation(x)) == pytest.approx(-0.5 * math.log(1 - 0.36))
    # equal variances v: the roots of v (1 +- r) times v have the trace v (sqrt(1.6) + sqrt(0.4))
    expected = (4 - 2 * (math.sqrt(1.6) + math.sqrt(0.4))) / 2
    assert gaussian_wasserstein_correlation(x).details["normalised"] == pytest.approx(expected)


@given(st.integers(0, 10**6), st.permutations(range(3)), st.lists(st.floats(1e-4, 1e4), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_total_correlation_knows_no_scale(seed: int, order: list[int], scales: list[float]) -> None:
    x = correlated(40, 3, seed)
    moved = x[:, order] * scales
    assert float(gaussian_total_correlation(moved)) == pytest.approx(float(gaussian_total_correlation(x)), abs=1e-6)


def test_still_codes_count_for_nothing_and_copies_are_infinite() -> None:
    x = correlated(50, 3, 0)
    still = np.hstack([x, np.full((50, 1), 7.0)])
    assert float(gaussian_total_correlation(still)) == pytest.approx(float(gaussian_total_correlation(x)))
    assert gaussian_total_correlation(still).details["active"].tolist() == [0, 1, 2]
    assert float(gaussian_wasserstein_correlation(still)) == pytest.approx(float(gaussian_wasserstein_correlation(x)))
    assert float(gaussian_total_correlation(np.hstack([x, x[:, :1]]))) == math.inf
    assert math.isfinite(float(gaussian_wasserstein_correlation(np.hstack([x, x]))))
    for alone in (np.zeros((9, 2)), np.stack([np.arange(9.0), np.ones(9)], axis=1)):
        assert float(gaussian_total_correlation(alone)) == 0
        assert float(gaussian_wasserstein_correlation(alone)) == 0


def test_pairwise_information_is_that_of_scikit_learn() -> None:
    x = correlated(1500, 3, 1)
    found = mean_pairwise_mutual_information(x)
    binned = [np.digitize(column, np.histogram(column, 20)[1][:-1]) for column in x.T]
    pairs = [mutual_info_score(binned[i], binned[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(found) == pytest.approx(np.mean(pairs))
    assert found.details["bias"] == pytest.approx(361 / 3000)


def test_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows of 3 codes"):
        gaussian_total_correlation(np.eye(3))
    with pytest.raises(ValueError, match="3 rows of 3 codes"):
        gaussian_wasserstein_correlation(np.eye(3))
    with pytest.raises(ValueError, match=r"100 rows are too few.*use at least 1206"):
        mean_pairwise_mutual_information(correlated(100, 3, 0))
