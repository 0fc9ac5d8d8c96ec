"""JEMMIG and DCI-MIG against tables of counts written out, and codes whose score is known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from orthogan.disentanglement import dci_mig, jemmig
from tests.fixtures import toy


def entropy(*columns: np.ndarray) -> float:
    """Of the joint values, by counting tuples."""
    counts = Counter(zip(*(column.tolist() for column in columns), strict=True))
    n = sum(counts.values())
    return -sum(count / n * math.log(count / n) for count in counts.values())


def binned(codes: np.ndarray, bins: int) -> np.ndarray:
    low, high = codes.min(0), codes.max(0)
    return np.minimum((codes - low) / (high - low) * bins, bins - 1).astype(int)


def information(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(d, K), as H(a) + H(b) - H(a, b)."""
    return np.array([[entropy(a) + entropy(b) - entropy(a, b) for b in factors.T] for a in codes.T])


def test_both_are_those_of_tables_written_out() -> None:
    x, y = toy.noisy(800, (3, 5, 4), 4, 0.1, seed=3)
    places = binned(x, 10)
    table = information(places, y)
    expected = []
    for j, column in enumerate(y.T):
        best, second = np.argsort(table[:, j])[::-1][:2]
        joint = entropy(places[:, best], column)
        worst = entropy(column) + math.log(10)
        expected.append(1 - (joint - table[best, j] + table[second, j]) / worst)
    found = jemmig(x, y)
    np.testing.assert_allclose(found.details["per_factor"], expected, atol=1e-12)
    assert float(found) == pytest.approx(np.mean(expected))
    kept = [0.0] * 3
    for row in table:
        first, second = np.sort(row)[::-1][:2]
        kept[int(row.argmax())] = max(kept[int(row.argmax())], first - second)
    assert float(dci_mig(x, y)) == pytest.approx(sum(kept) / sum(entropy(column) for column in y.T))


@pytest.mark.parametrize(
    ("encoder", "joint_low", "joint_high", "gap_low", "gap_high"),
    [
        ("identity", 0.98, 1.0, 0.98, 1.0),
        ("zeros", 0.45, 0.55, 0.0, 0.0),  # a constant code has no entropy: only the factor is left of the joint one
        ("duplicated", 0.45, 0.55, 0.98, 1.0),  # no gap between two copies; a copy costs DCI-MIG nothing
        ("row-permuted", 0.0, 0.2, 0.0, 0.05),
        ("rotated", 0.0, 0.2, 0.0, 0.2),
    ],
)
def test_codes_whose_score_is_known(
    encoder: str, joint_low: float, joint_high: float, gap_low: float, gap_high: float
) -> None:
    y = toy.factors(10_000)
    codes = toy.encoders(y)[encoder]
    assert joint_low <= jemmig(codes, y).value <= joint_high
    assert gap_low <= dci_mig(codes, y).value <= gap_high


def test_a_code_of_two_factors_costs_both() -> None:
    y = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="ij"), -1).reshape(-1, 2).repeat(50, 0)
    both = np.stack([3 * y[:, 0] + y[:, 1], np.zeros(len(y))], 1).astype(float)
    # the code knows both factors (9 values): joint entropy log 9, gap log 3, with 9 bins
    assert float(jemmig(both, y, bins=9)) == pytest.approx(
        1 - (math.log(9) - math.log(3)) / (math.log(3) + math.log(9))
    )
    assert float(dci_mig(both, y, bins=9)) == pytest.approx(0, abs=1e-12)
