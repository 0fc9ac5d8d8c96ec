"""The Hessian penalty and OroJaR as functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.errors import UserError
from orthogan.penalties.latent import hessian_penalty, orojar_penalty
from tests.fixtures.latent_nets import Factors


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def expected_over_signs(penalty: Callable[..., Tensor], function: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """The penalty's mean over many draws of two sign vectors."""
    chance = source()
    return float(np.mean([float(penalty(function, z, generator=chance)) for _ in range(1500)]))


def test_the_authors_oracle_of_the_hessian_penalty() -> None:
    z = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    for feature, expected in ((lambda z: z[:, :1] * z[:, 1:], 4.0), (lambda z: z[:, :1] ** 2 * z[:, 1:], 16 * 0.7**2)):
        # with two sign vectors the variance is 0 or twice its mean, each half of the time
        assert expected_over_signs(hessian_penalty, feature, z) == pytest.approx(expected, rel=0.1)
        many = hessian_penalty(feature, z, k=20_000, generator=source())
        assert float(many) == pytest.approx(expected, rel=1e-2)


def quadratic(dim: int, features: int, seed: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Features z^T H z / 2 with known Hessians."""
    h = torch.randn(features, dim, dim, dtype=torch.float64, generator=source(seed))
    h = (h + h.mT) / 2
    return lambda z: torch.einsum("ni,fij,nj->nf", z, h, z) / 2, h


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.sampled_from(["max", "mean"]))
@settings(max_examples=30, deadline=None)
def test_the_hessian_penalty_is_the_variance_of_the_quadratic_form(
    dim: int, features: int, seed: int, reduction: str
) -> None:
    function, h = quadratic(dim, features, seed)
    z = torch.randn(3, dim, dtype=torch.float64, generator=source(seed))
    chance = source(seed)
    signs = torch.stack([2.0 * torch.randint(0, 2, z.shape, generator=chance) - 1 for _ in range(4)]).double()
    variance = torch.einsum("kni,fij,knj->knf", signs, h, signs).var(0)
    expected = (variance.amax(1) if reduction == "max" else variance.mean(1)).mean()
    found = hessian_penalty(function, z, k=4, reduction=reduction, generator=source(seed))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.sampled_from(["sum", "mean"]))
@settings(max_examples=30, deadline=None)
def test_orojar_is_the_variance_of_the_squared_length(dim: int, features: int, seed: int, reduction: str) -> None:
    w = torch.randn(features, dim, dtype=torch.float64, generator=source(seed))
    z = torch.randn(3, dim, dtype=torch.float64, generator=source(seed))
    chance = source(seed)
    signs = torch.stack([2.0 * torch.randint(0, 2, z.shape, generator=chance) - 1 for _ in range(4)]).double()
    squares = (signs @ w.T).square().sum(-1)
    expected = (squares if reduction == "sum" else squares / features).var(0).mean()
    found = orojar_penalty(lambda z: z @ w.T, z, k=4, reduction=reduction, generator=source(seed))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_orojar_in_expectation_is_twice_the_squared_off_diagonal_of_jtj() -> None:
    w = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]], dtype=torch.float64)
    gram = w.T @ w
    off = gram - gram.diag().diag()
    z = torch.zeros(1, 3, dtype=torch.float64)
    found = expected_over_signs(orojar_penalty, lambda z: z @ w.T, z)
    assert found == pytest.approx(2 * float(off.square().sum()), rel=0.1)


@pytest.mark.parametrize("penalty", [hessian_penalty, orojar_penalty])
def test_separate_factors_cost_nothing_and_mixed_ones_do(penalty) -> None:
    net = Factors(3)
    z = torch.randn(4, 3, generator=source())
    epsilon = 0.1 if penalty is hessian_penalty else 1e-3  # OroJaR's forward difference is off by O(epsilon)
    mixed = penalty(net, z, k=8, epsilon=epsilon, generator=source())
    apart = penalty(lambda c: net(c @ torch.from_numpy(net.v).float()), z, k=8, epsilon=epsilon, generator=source())
    assert float(apart) < 1e-4 * float(mixed)


@pytest.mark.parametrize("penalty", [hessian_penalty, orojar_penalty])
def test_several_features_add_up_and_gradients_are_right(penalty) -> None:
    function, _ = quadratic(3, 2, 0)
    cubic = lambda z: function(z) * z[:, :1]  # noqa: E731
    z = torch.randn(2, 3, dtype=torch.float64, generator=source()).requires_grad_(True)
    both = penalty(lambda z: (function(z), cubic(z)), z, k=3, generator=source(1))
    parts = [penalty(one, z, k=3, generator=source(1)) for one in (function, cubic)]
    torch.testing.assert_close(both, sum(parts))
    assert torch.autograd.gradcheck(lambda z: penalty(cubic, z, k=3, generator=source(1)), (z,))
    w = torch.randn(2, 3, dtype=torch.float64, generator=source()).requires_grad_(True)
    fixed = z.detach()
    assert torch.autograd.gradcheck(lambda w: penalty(lambda z: (z @ w.T) ** 2, fixed, k=3, generator=source(1)), (w,))
    first, second = penalty(cubic, z, generator=source(1)), penalty(cubic, z, generator=source(2))
    (first + second).backward()  # two forwards before one backward
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


@pytest.mark.parametrize("penalty", [hessian_penalty, orojar_penalty])
def test_half_precision_and_autocast_change_nothing(penalty) -> None:
    net = Factors(3)
    z = torch.randn(4, 3, generator=source()).bfloat16()
    expected = penalty(net, z.float(), generator=source())
    assert torch.equal(penalty(net, z, generator=source()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(penalty(net, z, generator=source()), expected)


@pytest.mark.parametrize("penalty", [hessian_penalty, orojar_penalty])
def test_the_penalties_compile_whole(penalty) -> None:
    net = Factors(3)
    function = lambda z, w: penalty(lambda x: net(x @ w), z)  # noqa: E731
    z, w = torch.randn(2, 3, generator=source()), torch.eye(3).requires_grad_(True)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    value = compiled(z, w)
    torch.manual_seed(0)
    expected = function(z, w)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, w), torch.autograd.grad(expected, w))


def test_unfit_arguments_of_the_penalties() -> None:
    z = torch.zeros(1, 2)
    for penalty in (hessian_penalty, orojar_penalty):
        with pytest.raises(UserError, match="k=1"):
            penalty(lambda z: z, z, k=1)
        with pytest.raises(UserError, match="epsilon=0"):
            penalty(lambda z: z, z, epsilon=0)
        with pytest.raises(UserError, match="reduction='none'"):
            penalty(lambda z: z, z, reduction="none")


def test_the_largest_value_of_the_batch_is_that_of_its_worst_latent() -> None:
    """At k = 2 the variance of two numbers is half of the square of their difference; here it differs by latent."""
    function, h = quadratic(3, 2, seed=1)
    z = torch.randn(5, 3, dtype=torch.float64, generator=source(1))
    chance = source(2)
    a, b = (2.0 * torch.randint(0, 2, z.shape, generator=chance) - 1 for _ in range(2))
    a, b = a.double(), b.double()
    curves = [torch.einsum("ni,fij,nj->nf", x, h, x) for x in (a, b)]
    worst = float(((curves[0] - curves[1]).square() / 2).max())
    found = hessian_penalty(function, z, generator=source(2), over_batch="max")
    assert float(found) == pytest.approx(worst, rel=1e-6)
    assert float(hessian_penalty(function, z, generator=source(2))) < worst
    w = h[0]
    lengths = [(x @ w.T).square().sum(1) for x in (a, b)]
    worst = float(((lengths[0] - lengths[1]).square() / 2).max())
    found = orojar_penalty(lambda z: z @ w.T, z, generator=source(2), over_batch="max")
    assert float(found) == pytest.approx(worst, rel=1e-6)
    with pytest.raises(UserError, match="over_batch='sum'"):
        orojar_penalty(function, z, over_batch="sum")  # pyright: ignore[reportArgumentType]
