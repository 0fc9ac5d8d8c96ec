"""The polar factor by every route against the SVD in float64, its slope, and what it does without full rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import nearest_orthogonal, polar_factor
from orthogan.linalg.polar import POLAR_EXPRESS, newton_schulz

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))
METHODS = ["eigh", "svd", "newton_schulz"]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(matrix: Tensor) -> Tensor:
    u, _, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ vt


@given(shapes, st.integers(0, 10**6), st.sampled_from(METHODS), st.floats(1e-6, 1e6))
@settings(max_examples=80, deadline=None)
def test_every_exact_method_gives_the_polar_factor_at_every_scale(
    shape: tuple[int, int], seed: int, method: str, scale: float
) -> None:
    u, _, vt = torch.linalg.svd(random(*shape, seed=seed), full_matrices=False)
    values = 1 + torch.rand(min(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 50
    matrix = scale * u @ torch.diag(values) @ vt
    tolerance = {"newton_schulz": 1e-5}.get(method, 1e-9)
    torch.testing.assert_close(nearest_orthogonal(matrix, method), u @ vt, atol=tolerance, rtol=0)


@given(shapes, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_no_other_orthonormal_matrix_is_nearer(shape: tuple[int, int], seed: int) -> None:
    g = random(*shape, seed=seed)
    ours = float((g - nearest_orthogonal(g)).norm())
    for other in range(5):
        assert ours <= float((g - oracle(random(*shape, seed=seed + other + 1))).norm()) + 1e-9


@pytest.mark.parametrize("method", ["eigh", "svd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_null_directions_are_left_out(method: str, dtype: torch.dtype) -> None:
    left, right = oracle(random(8, 3)), oracle(random(3, 20, seed=1))
    matrix = (left @ torch.diag(torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)) @ right).to(dtype)
    tolerance = 0.02 if dtype == torch.bfloat16 else None  # rounding to bfloat16 fills the null space
    found = nearest_orthogonal(matrix, method, tolerance).double()
    torch.testing.assert_close(found, left @ right, atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    assert nearest_orthogonal(matrix, method).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("method", [*METHODS, "polar_express"])
@pytest.mark.parametrize("matrix", [torch.zeros(3, 4), torch.ones(1, 5), torch.ones(5, 1), torch.ones(4, 6)], ids=str)
def test_degenerate_matrices_stay_finite(method: str, matrix: Tensor) -> None:
    found = nearest_orthogonal(matrix, method)
    assert torch.isfinite(found).all()
    assert float(torch.linalg.matrix_norm(found, 2)) <= 1.02


def test_extreme_magnitudes_do_not_overflow() -> None:
    for scale in (1e-30, 1e30):
        g = (random(4, 9) * scale).float()
        torch.testing.assert_close(nearest_orthogonal(g).double(), oracle(g), atol=1e-5, rtol=0)


def test_an_ill_conditioned_float32_gradient_keeps_its_small_directions() -> None:
    u, _, vt = torch.linalg.svd(random(30, 500), full_matrices=False)
    values = torch.logspace(0, -4, 30, dtype=torch.float64)
    g = (u @ torch.diag(values) @ vt).float()
    torch.testing.assert_close(nearest_orthogonal(g).double(), u @ vt, atol=2e-3, rtol=0)


def test_polar_express_brings_singular_values_of_a_thousandth_to_one() -> None:
    x = torch.logspace(-3, 0, 2000, dtype=torch.float64)
    for a, b, c in POLAR_EXPRESS:
        x = a * x + b * x**3 + c * x**5
    assert float((x - 1).abs().max()) < 1e-5
    g = random(40, 90, seed=3).float()
    found = nearest_orthogonal(g, "polar_express").double()
    assert float((torch.linalg.svdvals(found) - 1).abs().max()) < 0.02
    assert float((found - oracle(g)).norm() / oracle(g).norm()) < 0.05  # bfloat16 rounds the gradient itself


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3), (2, 3, 5), (1, 4)])
def test_slope_of_the_polar_factor(shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(polar_factor, (random(*shape, seed=7).requires_grad_(),))


def test_slope_of_newton_schulz_is_that_of_the_polar_factor() -> None:
    a = (random(2, 5, 5, seed=2) + 2 * torch.eye(5)).requires_grad_()
    probe = random(2, 5, 5, seed=3)
    (one,) = torch.autograd.grad((newton_schulz(a, 1e-13) * probe).sum(), a)
    (two,) = torch.autograd.grad((polar_factor(a) * probe).sum(), a)
    torch.testing.assert_close(one, two)
    with pytest.raises(ValueError, match="square"):
        newton_schulz(random(3, 4).requires_grad_())


def test_the_slope_is_finite_where_singular_values_coincide_and_vanish() -> None:
    for matrix in (torch.eye(4), torch.zeros(4, 4), torch.ones(3, 5), torch.diag(torch.tensor([1.0, 1, 0, 0]))):
        x = matrix.clone().requires_grad_()
        (polar_factor(x) * torch.arange(x.numel()).view_as(x)).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="choose eigh"):
        nearest_orthogonal(torch.eye(2), "qr")
