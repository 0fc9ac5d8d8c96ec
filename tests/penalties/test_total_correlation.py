"""The total correlation of codes against determinants, and what its gradient does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from orthogan.penalties import total_correlation


def test_it_is_that_of_a_normal_distribution_with_this_covariance() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    correlation = np.corrcoef(x, rowvar=False)
    found = total_correlation(torch.from_numpy(x))
    assert float(found) == pytest.approx(-0.5 * math.log(np.linalg.det(correlation)), rel=1e-3)
    # it does not depend on the scale of a code, as long as it is far above the floor
    assert float(total_correlation(torch.from_numpy(x * [1, 10, 100, 1]))) == pytest.approx(float(found), rel=1e-3)


def test_two_normal_columns_have_minus_half_the_log_of_one_less_the_squared_correlation() -> None:
    a, b = (torch.randn(100_000, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    found = total_correlation(torch.stack([a, 0.6 * a + 0.8 * b], 1))
    assert float(found) == pytest.approx(-0.5 * math.log(1 - 0.36), abs=0.01)


def test_descent_makes_columns_uncorrelated_and_a_constant_column_is_finite() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x = torch.nn.Parameter(x @ torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.4, 0.3], [0.0, 0.0, 1.0]]))
    first = float(total_correlation(x).detach())
    optimizer = torch.optim.SGD([x], lr=20.0)
    for _ in range(60):
        optimizer.zero_grad()
        total_correlation(x).backward()
        optimizer.step()
    assert first > 0.5
    assert float(total_correlation(x).detach()) < 0.1
    still = torch.cat([x.detach(), torch.ones(200, 1)], 1).requires_grad_()
    total_correlation(still).backward()
    assert still.grad is not None
    assert bool(torch.isfinite(still.grad).all())


def test_autocast_changes_neither_the_value_nor_the_gradient() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] = x[:, 0] + 0.05 * x[:, 1]
    exact = torch.from_numpy(np.array(x)).double().requires_grad_()
    expected = total_correlation(exact)
    expected.backward()
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = total_correlation(x)
    found.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=1e-2, atol=1e-4)  # pyright: ignore


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 row: a covariance needs at least 2"):
        total_correlation(torch.zeros(1, 3))
