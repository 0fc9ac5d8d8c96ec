"""InfoMEC on codes whose information is known, and its classifier against probabilities that are known."""

from __future__ import annotations

import numpy as np
import pytest

from orthogan.disentanglement import infoc, infoe, infom

RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, 4, (700, 3))
NOISE = 0.2 * RNG.random((700, 3))
OWN = FACTORS + NOISE


def test_one_code_per_factor_is_perfect_and_a_mixture_of_all_is_not() -> None:
    assert infom(OWN, FACTORS).value > 0.95
    assert infoc(OWN, FACTORS).value > 0.95
    # a code that holds two of three factors equally: a share of 1/2, which lies 1/4 of the way from 1/3 to 1
    pair = np.stack([4 * FACTORS[:, 0] + FACTORS[:, 1], FACTORS[:, 2]], 1) + NOISE[:, :2]
    found = infom(pair, FACTORS)
    assert found.details["information"][0, :2] == pytest.approx([1, 1], abs=0.08)
    assert found.value == pytest.approx((0.25 + 1) / 2, abs=0.08)
    # a factor in two of four codes: a share of 1/2, of which 1/4 is chance
    copied = np.hstack([OWN, OWN[:, :1] + 0.01 * RNG.random((700, 1))])
    assert infoc(copied, FACTORS).value == pytest.approx((1 / 3 + 1 + 1) / 3, abs=0.08)


def test_codes_that_hardly_vary_are_ignored() -> None:
    found = infom(np.hstack([OWN, 0.01 * OWN[:, :1], np.ones((700, 1))]), FACTORS)
    assert found.details["active"].tolist() == [0, 1, 2]


def test_explicitness_is_the_information_of_a_linear_classifier() -> None:
    assert infoe(OWN, FACTORS).value > 0.95
    assert abs(infoe(RNG.standard_normal((700, 3)), FACTORS).value) < 0.03
    # of two classes with unit normal codes at -1 and 1, the best classifier knows the class with odds exp(2 x)
    y = RNG.integers(0, 2, (20_000, 1))
    x = 2.0 * y - 1 + RNG.standard_normal(y.shape)
    loss = np.log1p(np.exp(-2 * x * (2 * y - 1))).mean()
    assert infoe(x, y).value == pytest.approx(1 - loss / np.log(2), abs=5e-3)
