"""Matrix functions against singular value decompositions in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import normalize, power_iteration, stable_rank, stable_rank_scale

shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(shapes, st.integers(0, 10**6))
def test_stable_rank_is_its_definition(shape: tuple[int, int], seed: int) -> None:
    w = matrix(*shape, seed)
    values = np.linalg.svd(w.numpy(), compute_uv=False)
    assert float(stable_rank(w)) == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-10)


@given(shapes, st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_stable_rank_lies_between_one_and_the_rank_at_every_scale(
    shape: tuple[int, int], seed: int, scale: float
) -> None:
    w = matrix(*shape, seed)
    rank = float(stable_rank(w))
    assert 1 - 1e-9 <= rank <= min(shape) + 1e-9
    assert float(stable_rank(scale * w)) == pytest.approx(rank, rel=1e-9)
    assert float(stable_rank(w.T)) == pytest.approx(rank, rel=1e-9)


def test_stable_rank_of_special_matrices() -> None:
    assert float(stable_rank(torch.zeros(3, 4))) == 0.0
    assert float(stable_rank(torch.eye(5))) == pytest.approx(5.0)
    assert float(stable_rank(torch.ones(4, 7))) == pytest.approx(1.0, rel=1e-5)
    batch = torch.stack([torch.eye(3), torch.ones(3, 3)])
    torch.testing.assert_close(stable_rank(batch), torch.tensor([3.0, 1.0]))


@given(shapes, st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_power_iteration_converges_to_the_top_pair(shape: tuple[int, int], seed: int) -> None:
    w = matrix(*shape, seed)
    values = torch.linalg.svdvals(w)
    start = normalize(matrix(1, shape[0], seed + 1)[0])
    u, v = power_iteration(w, start, 1000)
    assert float(u.norm()) == pytest.approx(1.0)
    assert float(v.norm()) == pytest.approx(1.0)
    # where the two largest values nearly tie, convergence takes longer than 1000 steps
    if len(values) == 1 or float(values[1] / values[0]) < 0.97:
        assert float(u @ w @ v) == pytest.approx(float(values[0]), rel=1e-6)


def test_one_iteration_raises_the_estimate() -> None:
    w = matrix(20, 30, 0)
    u = normalize(matrix(1, 20, 1)[0])
    estimates = []
    for _ in range(10):
        u, v = power_iteration(w, u, 1)
        estimates.append(float(u @ w @ v))
    assert estimates == sorted(estimates)
    assert estimates[-1] <= float(torch.linalg.svdvals(w)[0]) + 1e-12


def test_power_iteration_on_a_batch_is_that_on_each() -> None:
    ws = torch.stack([matrix(4, 6, s) for s in range(3)])
    us = normalize(torch.stack([matrix(1, 4, 9 + s)[0] for s in range(3)]))
    u, v = power_iteration(ws, us, 5)
    for i in range(3):
        one_u, one_v = power_iteration(ws[i], us[i], 5)
        torch.testing.assert_close(u[i], one_u)
        torch.testing.assert_close(v[i], one_v)


def test_a_zero_matrix_keeps_a_unit_vector() -> None:
    # were u to become zero, it would stay zero when the matrix no longer is
    u = normalize(matrix(1, 4, 0)[0])
    after, v = power_iteration(torch.zeros(4, 6, dtype=torch.float64), u, 3)
    assert float(after.norm()) == pytest.approx(1.0)
    assert torch.isfinite(v).all()
    w = matrix(4, 6, 1)
    u2, v2 = power_iteration(w, after, 500)
    assert float(u2 @ w @ v2) == pytest.approx(float(torch.linalg.svdvals(w)[0]), rel=1e-6)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_scale_brings_the_stable_rank_to_the_target(m: int, n: int, seed: int, share: float) -> None:
    w = matrix(m, n, seed)
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    rank = float(stable_rank(w))
    target = 1 + share * (min(m, n) - 1)
    scale = stable_rank_scale(w, s[0], target)
    result = scale * w / s[0] + (1 - scale) * torch.outer(u[:, 0], vt[0])
    assert float(torch.linalg.svdvals(result)[0]) == pytest.approx(1.0, rel=1e-9)
    assert float(stable_rank(result)) == pytest.approx(min(rank, target), rel=1e-6)


def test_the_residual_identity_holds_for_any_unit_vectors() -> None:
    # ||W/s - u v^T||^2 = ||W||^2/s^2 - 1 with s = u^T W v: what lets the scale do without the difference
    for seed in range(20):
        w = matrix(5, 7, seed)
        u, v = normalize(matrix(1, 5, seed + 100)[0]), normalize(matrix(1, 7, seed + 200)[0])
        s = u @ w @ v
        residual = (w / s - torch.outer(u, v)).square().sum()
        torch.testing.assert_close(residual, w.square().sum() / s.square() - 1)


def test_scale_is_differentiable_where_there_is_no_tail() -> None:
    w = torch.randn(1, 8, dtype=torch.float64, requires_grad=True)
    sigma = w.norm()
    (gradient,) = torch.autograd.grad(stable_rank_scale(w, sigma, 1.0), w)
    assert torch.isfinite(gradient).all()
