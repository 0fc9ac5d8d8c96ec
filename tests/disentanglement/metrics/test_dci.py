"""DCI against entropies by hand and codes whose score is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Lasso

from orthogan.disentanglement import completeness, dci, disentanglement
from orthogan.disentanglement.metrics.dci import Classifier
from tests.fixtures import toy


def by_hand(importance: np.ndarray) -> tuple[float, float]:
    """D and C with the published 1e-11 under the logarithm."""

    def concentration(numbers: list[float]) -> float:
        total = sum(v + 1e-11 for v in numbers)
        shares = [(v + 1e-11) / total for v in numbers]
        return 1 + sum(p * math.log(p, len(shares)) for p in shares)

    d, k = importance.shape
    rows = [[importance[i, j] for j in range(k)] for i in range(d)]
    columns = [[importance[i, j] for i in range(d)] for j in range(k)]
    whole = sum(map(sum, rows))
    return (
        sum(concentration(row) * sum(row) for row in rows) / whole,
        sum(concentration(column) * sum(column) for column in columns) / whole,
    )


matrices = st.tuples(st.integers(2, 6), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
)


@given(matrices)
@settings(max_examples=80, deadline=None)
def test_disentanglement_and_completeness_are_entropies_by_hand(importance: np.ndarray) -> None:
    assume(importance.any())
    d, c = by_hand(importance)
    assert disentanglement(importance)[0] == pytest.approx(d, abs=1e-8)
    assert completeness(importance)[0] == pytest.approx(c, abs=1e-8)
    assert 0 <= disentanglement(importance)[0] <= 1


def test_no_importance_at_all_scores_zero() -> None:
    importance = np.zeros((3, 4))
    assert disentanglement(importance)[0] == completeness(importance)[0] == 0


def test_published_matrices_give_the_published_scores() -> None:
    ten = 5 * np.eye(5)
    assert disentanglement(ten)[0] == pytest.approx(1)
    both = np.hstack([ten, ten])  # each code holds two of ten factors
    assert disentanglement(both)[0] == pytest.approx(1 - math.log(2) / math.log(10))
    assert completeness(both)[0] == pytest.approx(1)
    twice = np.vstack([ten, ten])  # each factor is in two of ten codes
    assert disentanglement(twice)[0] == pytest.approx(1)
    assert completeness(twice)[0] == pytest.approx(1 - math.log10(2))
    dead = np.array([[1.0, 0], [0, 1], [0, 0]])
    assert disentanglement(dead)[0] == pytest.approx(1)
    np.testing.assert_array_equal(disentanglement(dead)[1], [1, 1, 0])


def test_a_matrix_without_a_logarithm_base_is_refused() -> None:
    for wrong in (np.ones((3, 1)), np.ones(3), -np.eye(2)):
        with pytest.raises(ValueError, match="importance must be"):
            disentanglement(wrong)


def test_boosted_trees_on_known_encoders() -> None:
    y = toy.factors(500, count=5, size=5)
    scores = {name: dci(codes, y, estimators=4) for name, codes in toy.encoders(y).items()}
    identity = scores["identity"]
    assert float(identity) > 0.95
    assert identity.details["completeness"] > 0.95
    assert identity.details["informativeness_test"] > 0.95
    assert float(scores["duplicated"]) > 0.9
    assert scores["duplicated"].details["completeness"] < 0.95
    assert float(scores["zeros"]) == scores["zeros"].details["completeness"] == 0
    for name in ("row-permuted", "rotated"):
        assert float(scores[name]) < 0.4, name
        assert scores[name].details["completeness"] < 0.4, name
        assert scores[name].details["informativeness_test"] < identity.details["informativeness_test"], name


@pytest.mark.parametrize("classifier", ["random_forest", "lasso"])
def test_rotation_lowers_what_other_predictors_find(classifier: Classifier) -> None:
    y = toy.factors(500, count=5, size=5)
    codes = toy.encoders(y)
    trees = 10 if classifier == "random_forest" else None
    straight, rotated = (
        dci(codes[name], y, classifier=classifier, estimators=trees) for name in ("identity", "rotated")
    )
    assert float(straight) > 1.5 * float(rotated)
    assert straight.details["completeness"] > 1.5 * rotated.details["completeness"]


def test_the_matrix_is_that_of_seeded_trees_on_the_rows_given() -> None:
    x, y = toy.noisy(150, (3, 4), 3, 0.1, seed=0)
    found = dci(x[:100], y[:100], test=(x[100:], y[100:]), estimators=3, seed=7)
    for j in range(2):
        model = GradientBoostingClassifier(n_estimators=3, random_state=7).fit(x[:100], y[:100, j])
        np.testing.assert_allclose(found.details["importance"][:, j], model.feature_importances_)
        right = np.mean(model.predict(x[100:]) == y[100:, j])
        assert found.details["informativeness_test_per_factor"][j] == pytest.approx(right)
    assert found.name == "dci_d[gbt,trees=3,train=100,test=50]"


def test_lasso_errors_are_one_for_codes_that_know_nothing() -> None:
    x, y = toy.noisy(900, (4, 5), 3, 0.05, seed=0)
    noise = np.random.default_rng(0).standard_normal(x.shape)
    blind, seeing = dci(noise, y, classifier="lasso"), dci(y, y, classifier="lasso")
    assert blind.details["nrmse_test"] == pytest.approx(1, abs=0.03)
    assert seeing.details["nrmse_test"] == pytest.approx(0.02, abs=0.002)  # the penalty takes alpha away
    z, w = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    whole = dci(x, y, classifier="lasso", test=(x, y)).details
    model = Lasso(alpha=0.02).fit(z, w[:, 0])
    np.testing.assert_allclose(whole["importance"][:, 0], np.abs(model.coef_), atol=1e-4)
    assert whole["nrmse_train"] == whole["nrmse_test"]


@given(st.integers(0, 1000), st.permutations(range(3)), st.floats(0.01, 100))
@settings(max_examples=6, deadline=None)
def test_order_and_scale_of_codes_do_not_matter(seed: int, order: list[int], scale: float) -> None:
    y = toy.factors(300, count=3, size=4, seed=seed)
    x = y + 0.5 * np.random.default_rng(seed).standard_normal(y.shape)  # no two codes cut alike
    classifiers: list[tuple[Classifier, int | None]] = [("gbt", 3), ("lasso", None)]
    for classifier, trees in classifiers:
        first = dci(x, y, classifier=classifier, estimators=trees)
        second = dci(x[:, order] * scale, y, classifier=classifier, estimators=trees)
        assert float(first) == pytest.approx(float(second), abs=0.05)  # equally good cuts are taken in another order
        assert first.details["completeness"] == pytest.approx(second.details["completeness"], abs=0.05)


def test_the_seed_and_nothing_else_decides() -> None:
    x, y = toy.noisy(200, (3, 4), 3, 0.1, seed=0)
    np.random.seed(1)
    first = dci(x, y, classifier="random_forest", estimators=3, seed=1)
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    again, other = (dci(x, y, classifier="random_forest", estimators=3, seed=seed) for seed in (1, 2))
    assert float(first) == float(again) != float(other)
    np.random.seed(1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_wrong_input_is_refused() -> None:
    x, y = toy.noisy(100, (3, 40), 3, 0.1, seed=0)
    y[:40, 1] = np.arange(40)
    with pytest.raises(ValueError, match="67 rows to train on and 33 to test; at least 80"):
        dci(x, y)
    with pytest.raises(ValueError, match="train_share=1"):
        dci(x, y, train_share=1)
    with pytest.raises(ValueError, match=r"test codes have shape \(9, 2\)"):
        dci(x, y, test=(x[:9, :2], y[:9]))
    with pytest.raises(ValueError, match="100 rows of codes but 90 rows of factors"):
        dci(x, y[:90], test=(x, y))
    two = np.stack([np.arange(103) >= 97, np.arange(103) % 2], axis=1)
    with pytest.raises(ValueError, match=r"factors \[0\] have the same value in all 97 training rows"):
        dci(two[:97], two[:97], test=(two[97:], two[97:]))
    with pytest.raises(ValueError, match="one of gbt, random_forest, lasso"):
        dci(x, y, classifier="svm")
    with pytest.raises(ValueError, match="estimators=5"):
        dci(x, y, classifier="lasso", estimators=5)
    with pytest.raises(ValueError, match="at least 2 codes"):
        dci(x[:, :1], y)


@pytest.mark.parametrize("noise", [0, 3, 15])
@pytest.mark.parametrize("classifier", ["gbt", "random_forest"])
def test_perfect_codes_reach_1_with_any_number_of_codes_of_noise(classifier: Classifier, noise: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, (2000, 3))
    x = np.hstack([y + 0.05 * rng.normal(size=y.shape), rng.normal(size=(2000, noise))])
    found = dci(x, y, classifier=classifier, estimators=5)
    assert found.value > 0.999
    assert found.details["completeness"] > 0.999
    assert found.details["informativeness_test"] == 1


def test_the_ceiling_of_another_number_of_features_is_the_documented_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, (2000, 3))
    x = y + 0.05 * rng.normal(size=y.shape)
    found = dci(x, y, classifier="random_forest", max_features="sqrt")
    assert found.value == pytest.approx(0.56, abs=0.02)
    assert "features=sqrt" in found.variant
    assert "features=all" in dci(x, y, classifier="random_forest", estimators=2).variant
    with pytest.raises(ValueError, match="applies only to random_forest"):
        dci(x, y, classifier="gbt", max_features="sqrt")
    with pytest.raises(ValueError, match="max_features"):
        dci(x, y, classifier="random_forest", max_features=-3)


@pytest.mark.parametrize("classifier", ["gbt", "random_forest"])
@pytest.mark.parametrize(("size", "offset"), [(1.0, 1e8), (1e-4, -1e3)])
def test_a_constant_in_front_of_a_code_does_not_matter(classifier: Classifier, size: float, offset: float) -> None:
    x, y = toy.noisy(200, (3, 4), 3, 0.1, seed=0)
    moved = x * size
    moved[:, 0] += offset  # the trees round codes to float32
    plain, found = (dci(codes, y, classifier=classifier, estimators=3) for codes in (x, moved))
    assert float(found) == pytest.approx(float(plain), abs=0.05)
    assert found.details["informativeness_test"] == pytest.approx(plain.details["informativeness_test"], abs=0.05)
