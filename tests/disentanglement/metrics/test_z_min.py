"""Z-min: votes that can be counted by hand, and codes whose score is known."""

from __future__ import annotations

import numpy as np
import pytest

from orthogan.disentanglement import z_min
from tests.fixtures import toy

FEW = {"train_votes": 200, "test_votes": 200, "batch": 64}


@pytest.mark.parametrize(
    ("encoder", "low", "high"),
    [("identity", 1.0, 1.0), ("zeros", -0.12, -0.1), ("duplicated", 1.0, 1.0), ("row-permuted", -0.12, 0.2)],
)
def test_codes_whose_score_is_known(encoder: str, low: float, high: float) -> None:
    y = toy.factors(4000)
    assert low <= z_min(toy.encoders(y)[encoder], y, **FEW).value <= high


def test_codes_keep_their_numbers_when_others_are_ignored() -> None:
    y = toy.factors(2000, count=3, size=4)
    x = np.hstack([1e-6 * y[:, :1], np.ones((len(y), 1)), y]).astype(float)
    found = z_min(x, y, **FEW)
    assert found.details["active"].tolist() == [2, 3, 4]
    assert found.details["assigned"].tolist() == [-1, -1, 0, 1, 2]
    assert found.value == 1.0


def test_half_of_the_factors_make_half_of_the_way_from_chance() -> None:
    y = toy.factors(4000, count=4, size=4)
    x = np.hstack([y[:, :2].astype(float), np.random.default_rng(0).standard_normal((len(y), 2))])
    found = z_min(x, y, **FEW)
    # two factors are always found, the other two are guesses of the two codes without a factor
    assert found.details["accuracy"] == pytest.approx(0.75, abs=0.1)
    assert found.value == pytest.approx((found.details["accuracy"] - 0.25) / 0.75)


def test_values_that_occur_once_cannot_be_held() -> None:
    with pytest.raises(ValueError, match="no value of a factor occurs twice"):
        z_min(np.eye(4), np.stack([np.arange(4), [0, 0, 1, 1]], 1))
