"""Modularity and IRS against loops and codes whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.disentanglement import irs, modularity, modularity_per_code
from tests.fixtures import toy


def test_published_matrices_give_the_published_modularity() -> None:
    five = 5 * np.eye(5)
    np.testing.assert_allclose(modularity_per_code(five), 1)
    np.testing.assert_allclose(modularity_per_code(np.vstack([five, five])), 1)
    np.testing.assert_allclose(modularity_per_code(np.hstack([five, five])), 1 - 1 / 9)
    np.testing.assert_allclose(modularity_per_code(np.array([[1.0, 0], [0, 1], [0, 0]])), [1, 1, 0])
    np.testing.assert_allclose(modularity_per_code(np.ones((3, 4)) * 1e-200), 0, atol=1e-12)


def test_modularity_is_the_formula_by_loops() -> None:
    x, y = toy.noisy(800, (3, 5, 4), 4, 0.1, seed=3)
    found = modularity(x, y)
    expected = []
    for row in found.details["mutual_information"]:
        best = max(range(3), key=lambda j: row[j])
        expected.append(1 - sum(row[j] ** 2 for j in range(3) if j != best) / (row[best] ** 2 * 2))
    np.testing.assert_allclose(found.details["per_code"], expected)
    assert float(found) == pytest.approx(np.mean(expected))


def test_modularity_of_known_encoders() -> None:
    y = toy.factors(20_000)
    scores = {name: float(modularity(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] > 0.99
    assert scores["duplicated"] > 0.99
    assert scores["zeros"] == 0
    assert scores["row-permuted"] < 0.2
    assert scores["rotated"] < scores["identity"] - 0.05


def test_pruning_leaves_out_codes_of_noise() -> None:
    y = toy.factors(2000, count=4)
    noise = np.random.default_rng(0).standard_normal((2000, 4))
    codes = np.hstack([y, noise])
    assert float(modularity(codes, y)) < 0.9
    pruned = modularity(codes, y, prune=0.1)
    assert float(pruned) > 0.99
    assert pruned.details["kept"].tolist() == [0, 1, 2, 3]
    assert "prune=0.1" in pruned.name
    assert float(modularity(noise, y, prune=0.5)) == 0


def irs_by_loops(x: np.ndarray, y: np.ndarray, quantile: float) -> float:
    scores, weights = [], []
    for code in x.T:
        if (code == code[0]).all():
            continue
        reach = max(abs(code - code.mean()))
        best = -np.inf
        for factor in y.T:
            spread = []
            for value in set(factor.tolist()):
                group = code[factor == value]
                ranked = sorted(abs(group - group.mean()))
                place = quantile * (len(ranked) - 1)  # between neighbours by straight line
                low = int(place)
                high = min(low + 1, len(ranked) - 1)
                spread.append(ranked[low] + (place - low) * (ranked[high] - ranked[low]))
            best = max(best, 1 - sum(spread) / len(spread) / reach)
        scores.append(best * reach)
        weights.append(reach)
    return sum(scores) / sum(weights)


@pytest.mark.parametrize("quantile", [0.99, 1.0])
def test_irs_is_the_formula_by_loops(quantile: float) -> None:
    x, y = toy.noisy(500, (3, 5, 4), 4, 0.1, seed=5)
    x[:, 1] = 2.5
    found = irs(x, y, quantile=quantile)
    assert float(found) == pytest.approx(irs_by_loops(x, y, quantile), abs=1e-12)
    assert found.details["active"].tolist() == [0, 2, 3]
    assert not found.details["matrix"][1].any()


def test_irs_of_known_encoders() -> None:
    y = toy.factors(1000)
    scores = {name: float(irs(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] == pytest.approx(1)
    assert scores["duplicated"] == pytest.approx(1)
    assert scores["zeros"] == 0
    assert scores["row-permuted"] < 0.1
    assert scores["rotated"] < 0.6


def test_irs_bins_a_factor_of_many_values() -> None:
    y = np.stack([np.arange(2000) % 40, np.arange(2000) // 40 % 2], axis=1)
    x = y.astype(float)
    binned = np.stack([y[:, 0] * 20 // 39 - (y[:, 0] == 39), y[:, 1]], axis=1)
    assert float(irs(x, y)) == pytest.approx(irs_by_loops(x, binned, 0.99), abs=1e-12)
    assert float(irs(x, y, bins=40)) == pytest.approx(1)


def test_irs_refuses_values_with_few_rows() -> None:
    y = toy.factors(60, count=2)
    with pytest.raises(ValueError, match="at least 10 are needed"):
        irs(y.astype(float), y)
    with pytest.raises(ValueError, match="quantile=0"):
        irs(y.astype(float), y, quantile=0)


def test_modularity_refuses_one_factor_and_a_wrong_share() -> None:
    y = toy.factors(1000, count=2)
    with pytest.raises(ValueError, match="at least 2 factors"):
        modularity(y.astype(float), y[:, :1])
    with pytest.raises(ValueError, match="prune=1"):
        modularity(y.astype(float), y, prune=1)
    with pytest.raises(ValueError, match="modularity: 100 rows are too few"):
        modularity(y[:100].astype(float), y[:100])


@given(st.integers(0, 10**6), st.permutations(range(4)), st.integers(-20, 20))
@settings(max_examples=20, deadline=None)
def test_order_and_scale_do_not_matter(seed: int, order: list[int], power: int) -> None:
    x, y = toy.noisy(600, (3, 4), 4, 0.2, seed)
    moved = x[:, order] * 2.0**power
    assert float(modularity(moved, y)) == pytest.approx(float(modularity(x, y)), abs=1e-12)
    assert float(irs(moved, y)) == pytest.approx(float(irs(x, y)), abs=1e-12)
