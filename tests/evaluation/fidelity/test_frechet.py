"""The Fréchet distance against matrix square roots, closed forms and its own symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_statistics_to_metric

from orthogan.evaluation.fidelity.frechet import frechet_distance, trace_root_product
from orthogan.evaluation.fidelity.statistics import Gaussian


def of_rows(rows: int, d: int, seed: int, scale: float = 1.0) -> Gaussian:
    x = np.random.default_rng(seed).standard_normal((rows, d)) * np.logspace(0, -2, d) * scale
    return Gaussian(x.mean(0), np.cov(x, rowvar=False).reshape(d, d), rows)


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


shapes = {
    "d": st.integers(1, 20),
    "rows": st.tuples(st.integers(2, 40), st.integers(2, 40)),
    "seed": st.integers(0, 10**6),
    "scale": st.sampled_from([1e-6, 1.0, 1e6]),
}


@given(**shapes)
@settings(deadline=None, max_examples=60)
def test_it_is_symmetric_zero_for_itself_and_blind_to_rotations(
    d: int, rows: tuple[int, int], seed: int, scale: float
) -> None:
    a, b = of_rows(rows[0], d, seed, scale), of_rows(rows[1], d, seed + 1, scale)
    size = scale**2 * d
    found = frechet_distance(a, b)
    assert found >= -1e-7 * size
    assert frechet_distance(b, a) == pytest.approx(found, abs=1e-6 * size)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7 * size)
    q = rotation(d, seed)
    turned = [Gaussian(q @ g.mean, q @ g.covariance @ q.T, g.count) for g in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(found, abs=1e-6 * size)


@pytest.mark.parametrize(("d", "rows"), [(1, 9), (2, 50), (17, 60), (64, 65), (64, 20), (64, 2), (130, 1000)])
def test_it_is_torch_fidelitys_and_scipys(d: int, rows: int) -> None:
    a, b = of_rows(rows, d, 0), of_rows(2 * d + 5, d, 1)
    theirs = fid_statistics_to_metric(*({"mu": g.mean, "sigma": g.covariance} for g in (a, b)), verbose=False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    if rows > d:  # scipy's root of a singular matrix is a poor one
        root = np.real(np.asarray(scipy.linalg.sqrtm(a.covariance @ b.covariance)))
        expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dead", [0, 3, 12])
def test_commuting_covariances_have_a_closed_form(dead: int) -> None:
    # sum (sqrt x - sqrt y)^2, also where directions or all of one side are dead
    rng = np.random.default_rng(dead)
    x, y = rng.uniform(0.1, 4, 12), rng.uniform(0.1, 4, 12)
    x[:dead], y[dead:6] = 0, 0
    q = rotation(12, 5)
    a, b = (Gaussian(np.zeros(12), (q * values) @ q.T, 99) for values in (x, y))
    expected = ((np.sqrt(x) - np.sqrt(y)) ** 2).sum()
    for one, other in ((a, b), (b, a)):
        assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_a_trace_that_rounding_drowns_in_the_product_survives() -> None:
    # spreads over 14 decades, one against the other: the trace of the root of the product is d exactly
    d, q = 8, rotation(8, 3)
    values = np.logspace(-7, 7, d)
    a, b = (torch.from_numpy((q * v) @ q.T) for v in (np.sqrt(values), 1 / np.sqrt(values)))
    assert float(trace_root_product(a, b)) == pytest.approx(d, rel=1e-5)


def test_tiny_negative_eigenvalues_are_noise() -> None:
    q = rotation(6, 1)
    values = np.array([4.0, 1.0, 0, 0, 0, 0])
    noisy = (q * (values - 1e-15)) @ q.T
    a, b = Gaussian(np.zeros(6), noisy, 9), Gaussian(np.ones(6), (q * values) @ q.T, 9)
    assert frechet_distance(a, b) == pytest.approx(6, abs=1e-6)
    assert frechet_distance(b, a) == pytest.approx(6, abs=1e-6)
    nothing = Gaussian(np.zeros(6), np.zeros((6, 6)), 9)
    assert frechet_distance(nothing, nothing) == 0
    assert frechet_distance(nothing, b) == pytest.approx(6 + 5)


@pytest.mark.gpu
def test_it_is_the_same_on_cuda() -> None:
    for rows in (200, 30):
        a, b = of_rows(rows, 64, 0), of_rows(500, 64, 1)
        assert frechet_distance(a, b, device="cuda") == pytest.approx(frechet_distance(a, b), rel=1e-8)
