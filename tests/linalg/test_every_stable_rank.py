"""The closed form of theorem 1 against brute force, its identities, and algorithm 1's clipping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import block_power_iteration, stable_rank, stable_rank_projection

cases = st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10**6), st.floats(0.02, 0.98))


def random(m: int, n: int, seed: int) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frame(a: Tensor) -> Tensor:
    q, triangle = torch.linalg.qr(a)
    return q * triangle.diagonal().sign()


def between(w: Tensor, share: float) -> float:
    """A target between 1 and the stable rank."""
    return 1 + share * (float(stable_rank(w)) - 1)


@given(cases, st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_the_stable_rank_is_exactly_the_target(case: tuple[int, int, int, float], k: int) -> None:
    m, n, seed, share = case
    w = random(m, n, seed)
    r = between(w, share)
    out = stable_rank_projection(w, r, k)
    assert float(stable_rank(out)) == pytest.approx(r, rel=1e-9)


@given(cases)
@settings(max_examples=80, deadline=None)
def test_holding_the_top_value_costs_the_factor_r(case: tuple[int, int, int, float]) -> None:
    m, n, seed, share = case
    w = random(m, n, seed)
    r = between(w, share)
    free = (w - stable_rank_projection(w, r, 0)).square().sum()
    held = (w - stable_rank_projection(w, r, 1)).square().sum()
    assert float(held) == pytest.approx(r * float(free), rel=1e-7)


@given(cases, st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_the_feasible_top_values_stay_and_the_distance_grows_with_k(case: tuple[int, int, int, float], k: int) -> None:
    m, n, seed, share = case
    w = random(m, n, seed)
    r = between(w, share)
    before, after = torch.linalg.svdvals(w), torch.linalg.svdvals(stable_rank_projection(w, r, k))
    feasible = int((before.square().cumsum(0)[: min(k, len(before))] <= r * before[0] ** 2).sum())
    torch.testing.assert_close(after[:feasible], before[:feasible])
    nearer = float((w - stable_rank_projection(w, r, k - 1)).norm())
    assert nearer <= float((w - stable_rank_projection(w, r, k)).norm()) + 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [0, 1, 2])
def test_no_matrix_that_gradient_descent_finds_is_nearer(seed: int, k: int) -> None:
    """Brute force: free singular vectors and values, the constraint by construction, from around W."""
    w = random(4, 5, seed)
    s = torch.linalg.svdvals(w)
    least = float((s[: max(1, k)] / s[0]).square().sum())  # what the preserved values alone have
    r = least + 0.5 * (float(stable_rank(w)) - least)
    ours = float((w - stable_rank_projection(w, r, k)).square().sum())
    best = float("inf")
    for start in range(3):
        u, _, vt = torch.linalg.svd(w)
        left = (u + 0.3 * random(4, 4, 100 + start)).requires_grad_()
        right = (vt.mT + 0.3 * random(5, 5, 200 + start)).requires_grad_()
        raw = random(1, 4, 300 + start)[0].requires_grad_()
        size = torch.tensor(float(s[0]), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([left, right, raw, size], lr=0.03)
        for _ in range(700):
            tail = raw.abs() + 1e-6
            if k == 0:  # top value free, the others below it, srank r
                rest = tail[1:] / tail[1:].norm() * (r - 1) ** 0.5
                values = size.abs() * torch.cat([torch.ones(1, dtype=torch.float64), rest])
            else:
                room = r * s[0] ** 2 - s[:k].square().sum()
                values = torch.cat([s[:k], tail[k:] / tail[k:].norm() * room.sqrt()])
            u, v = frame(left), frame(right)
            distance = (w - u @ torch.diag(values) @ v[:, :4].mT).square().sum()
            optimizer.zero_grad()
            distance.backward()
            optimizer.step()
        best = min(best, float(distance.detach()))
    assert ours <= best + 1e-6
    assert best <= ours * 1.01 + 1e-4, "the search came near"


def test_a_low_stable_rank_is_left_alone() -> None:
    w = random(4, 6, 0)
    for k in (0, 1, 3):
        torch.testing.assert_close(stable_rank_projection(w, float(stable_rank(w)) + 0.1, k), w)


def test_rank_one_is_the_limit_of_every_k() -> None:
    w = random(4, 6, 1)
    u, s, vt = torch.linalg.svd(w)
    top = s[0] * torch.outer(u[:, 0], vt[0])
    for k in (0, 1, 3):
        torch.testing.assert_close(stable_rank_projection(w, 1.0, k), top)


@pytest.mark.parametrize("w", [torch.zeros(3, 4), torch.ones(1, 5), torch.ones(4, 5), torch.eye(4)])
@pytest.mark.parametrize("k", [0, 1, 2, 9])
def test_degenerate_matrices_stay_finite(w: Tensor, k: int) -> None:
    out = stable_rank_projection(w, 1.5, k)
    assert torch.isfinite(out).all()
    assert float(stable_rank(out)) <= 1.5 + 1e-5


def test_batches_are_done_one_by_one() -> None:
    batch = torch.stack([random(3, 5, i) for i in range(4)])
    expected = torch.stack([stable_rank_projection(w, 1.4, 0) for w in batch])
    torch.testing.assert_close(stable_rank_projection(batch, 1.4, 0), expected)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_gradient(k: int) -> None:
    w = random(3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stable_rank_projection(x, 1.8, k), (w,))


def test_impossible_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"r is 0\.5"):
        stable_rank_projection(torch.eye(3), 0.5)
    with pytest.raises(ValueError, match="k is -1"):
        stable_rank_projection(torch.eye(3), 2, -1)


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_block_power_iteration_finds_the_top_singular_vectors(m: int, n: int, seed: int) -> None:
    u, _ = torch.linalg.qr(random(m, m, seed))
    v, _ = torch.linalg.qr(random(n, n, seed + 1))
    size = min(m, n)
    values = 2.0 ** -torch.arange(size, dtype=torch.float64)
    w = u[:, :size] @ torch.diag(values) @ v[:, :size].mT
    k = max(1, size // 2)
    left, right = block_power_iteration(w, torch.linalg.qr(random(m, k, seed + 2))[0], 60)
    torch.testing.assert_close((left.mT @ w @ right), torch.diag(values[:k]), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close((left * u[:, :k]).sum(0).abs(), torch.ones(k, dtype=torch.float64))


def test_block_power_iteration_stays_orthonormal_where_the_matrix_has_too_little_rank() -> None:
    left, right = block_power_iteration(torch.ones(5, 6), torch.linalg.qr(torch.randn(5, 3))[0], 4)
    torch.testing.assert_close(left.mT @ left, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(right.mT @ right, torch.eye(3), atol=1e-5, rtol=0)
