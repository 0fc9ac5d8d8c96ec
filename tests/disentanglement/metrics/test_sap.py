"""SAP and explicitness against classifiers fitted here, and codes whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp

from orthogan.disentanglement import explicitness, sap, sap_correlation
from tests.fixtures import toy


def svm_accuracy(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """One-against-rest squared hinge of a single code, C = 0.01 with weights that balance, intercept penalised."""
    classes = np.unique(y)

    def plane(k: int) -> np.ndarray:
        # weights balance all classes, then each is set against the rest with the rest at weight 1
        weight = np.where(y == k, len(y) / (len(classes) * (y == k).sum()), 1.0)
        if len(classes) == 2:
            weight = np.where(y == k, len(y) / (2 * (y == k).sum()), len(y) / (2 * (y != k).sum()))
        sign = np.where(y == k, 1.0, -1.0)

        def loss(p: np.ndarray) -> float:
            slack = np.maximum(0, 1 - sign * (p[0] * x + p[1]))
            return 0.5 * p @ p + 0.01 * (weight * slack**2).sum()

        return minimize(loss, np.zeros(2), tol=1e-10).x

    scores = np.stack([plane(k) @ np.stack([test_x, np.ones_like(test_x)]) for k in classes])
    return float(np.mean(classes[scores.argmax(0)] == test_y))


def test_accuracies_are_those_of_a_support_vector_machine_fitted_here() -> None:
    x, y = toy.noisy(240, (2, 3), 3, 0.1, seed=2)
    found = sap(x[:160], y[:160], test=(x[160:], y[160:])).details["accuracy"]
    for i, j in np.ndindex(3, 2):
        expected = svm_accuracy(x[:160, i], y[:160, j], x[160:, i], y[160:, j])
        assert found[i, j] == pytest.approx(expected, abs=1.5 / 80), (i, j)


def test_sap_of_known_encoders() -> None:
    y = toy.factors(500, count=4, size=2)
    scores = {name: float(sap(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] > 0.4  # the second best code guesses one of two values
    assert scores["zeros"] == 0
    assert scores["duplicated"] == 0
    assert scores["row-permuted"] < 0.1
    assert scores["rotated"] < 0.3


def test_sap_by_correlation_of_known_encoders() -> None:
    y = toy.factors(1000)
    scores = {name: float(sap_correlation(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] > 0.9
    assert scores["zeros"] == 0
    assert scores["duplicated"] == pytest.approx(0, abs=1e-12)
    assert scores["row-permuted"] < 0.1
    assert scores["rotated"] < 0.3


def test_the_correlation_matrix_is_that_of_numpy_and_uses_the_values_given() -> None:
    x, y = toy.noisy(300, (4, 5), 3, 0.2, seed=1)
    y = 2**y
    expected = np.corrcoef(x, y, rowvar=False)[:3, 3:] ** 2
    found = sap_correlation(x, y)
    np.testing.assert_allclose(found.details["squared_correlation"], expected, atol=1e-12)
    ranked = np.sort(expected, axis=0)
    assert float(found) == pytest.approx((ranked[-1] - ranked[-2]).mean())


def test_variants_have_names_of_their_own() -> None:
    y = toy.factors(60, count=2, size=2)
    x = y.astype(float)
    names = [sap(x, y).name, sap(x, y, standardise=True).name, sap_correlation(x, y).name]
    assert names == ["sap[svc,raw,train=40,test=20]", "sap[svc,standardised,train=40,test=20]", "sap[correlation,n=60]"]


@given(st.integers(0, 1000), st.permutations(range(3)), st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
@settings(max_examples=10, deadline=None)
def test_order_does_not_matter_nor_scale_once_standardised(seed: int, order: list[int], scales: list[float]) -> None:
    x, y = toy.noisy(200, (2, 3), 3, 0.1, seed)
    moved = x[:, order] * scales
    assert float(sap(x[:, order], y)) == pytest.approx(float(sap(x, y)), abs=1e-9)
    assert float(sap(moved, y, standardise=True)) == pytest.approx(float(sap(x, y, standardise=True)), abs=0.02)
    assert float(sap_correlation(moved, y)) == pytest.approx(float(sap_correlation(x, y)), abs=1e-9)
    assert float(explicitness(moved, y)) == pytest.approx(float(explicitness(x, y)), abs=1e-3)


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """The share of pairs ranked rightly, ties half."""
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


def test_areas_are_those_of_a_regression_fitted_here_by_counting_pairs() -> None:
    x, y = toy.noisy(240, (2, 4), 3, 0.2, seed=4)
    found = explicitness(x[:160], y[:160], test=(x[160:], y[160:]))
    z = (x - x[:160].mean(0)) / x[:160].std(0)
    for j, size in enumerate((2, 4)):
        hot = np.eye(size)[y[:160, j]]

        def loss(p: np.ndarray, hot: np.ndarray = hot, size: int = size) -> float:
            weights, shift = p[: 3 * size].reshape(3, size), p[3 * size :]
            logits = z[:160] @ weights + shift
            # two classes have one weight vector w in sklearn, (w/2, -w/2) here, whose squares are half of w's
            penalty = 0.5 * (weights**2).sum() * (2 if size == 2 else 1)
            return float((logsumexp(logits, axis=1) - (hot * logits).sum(1)).sum() + penalty)

        p = minimize(loss, np.zeros(4 * size)).x
        logits = z[160:] @ p[: 3 * size].reshape(3, size) + p[3 * size :]
        chances = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        labels = y[160:, j]
        areas = [area(chances[labels == k, k], chances[labels != k, k]) for k in range(size)]
        assert found.details["per_factor"][j] == pytest.approx(np.mean(areas), abs=2e-3)


def test_explicitness_of_known_encoders() -> None:
    y = toy.factors(500, count=4, size=5)
    scores = {name: float(explicitness(codes, y)) for name, codes in toy.encoders(y).items()}
    assert scores["identity"] > 0.9
    assert scores["rotated"] > 0.9  # it asks what the codes hold, not how
    assert scores["zeros"] == 0.5
    assert scores["row-permuted"] < 0.75


def test_explicitness_refuses_a_value_that_it_cannot_rank() -> None:
    y = toy.factors(40, count=2, size=10)
    with pytest.raises(ValueError, match=r"values of factor \d are missing from the \d+ \w+ rows; use more rows"):
        explicitness(y.astype(float), y)
    other = y.copy()
    other[0, 0] = 11
    with pytest.raises(ValueError, match="1 of the 11 values of factor 0 are missing from the 40 training rows"):
        explicitness(y.astype(float), y, test=(other.astype(float), other))


def test_sap_refuses_one_code_and_few_rows() -> None:
    y = toy.factors(40, count=2, size=20)
    with pytest.raises(ValueError, match="sap: factors have shape"):
        sap(y.astype(float), y[:, :1])
    with pytest.raises(ValueError, match="sap: 27 rows to train on"):
        sap(y.astype(float), y)
