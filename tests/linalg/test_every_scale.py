"""Every function of ``orthogan.linalg`` at every scale, in half precision, at zero, and of complex matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from orthogan import linalg
from orthogan.linalg import rotations
from orthogan.linalg.decompositions import eigh, thin_svd
from orthogan.linalg.gram import unit_rows
from orthogan.linalg.polar import PolarMethod, newton_schulz
from orthogan.linalg.power import power_iterations
from orthogan.linalg.precision import at_least_float32
from orthogan.linalg.roots import InverseMethod, SqrtMethod, condition_numbers


@dataclass
class Case:
    """``function(s * X) = s^degree * function(X)`` for every s > 0; ``square``: of symmetric positive matrices."""

    function: Callable[[Tensor], Tensor]
    degree: float = 0.0
    square: bool = False
    gradient: bool = True


def start(x: Tensor, k: int = 0) -> Tensor:
    shape = (*x.shape[:-1], k) if k else x.shape[:-1]
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(x)


def vectors(x: Tensor) -> Tensor:
    u, v = linalg.power_iteration(x, start(x), 3)
    return torch.cat([u, v], -1)


def many(x: Tensor) -> Tensor:
    u, v, _ = power_iterations([x, x.mT.contiguous(), 3 * x], [start(x), start(x.mT), start(x)], 3, stacked=False)
    return torch.cat([u, v], -1)


def sigma(x: Tensor) -> Tensor:
    return power_iterations([x, 2 * x], [start(x), start(x)], 3, stacked=True)[2]


def block(x: Tensor) -> Tensor:
    u, v = linalg.block_power_iteration(x, start(x, 2), 3)
    return u @ v.mT


def rate(form: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: linalg.optimal_learning_rate(x, torch.flip(x, [0]) + x, form)


CASES = {
    "polar_factor": Case(linalg.polar_factor),
    "newton_schulz": Case(lambda x: newton_schulz(at_least_float32(x)[:, :4], 1e-6)),
    "normalize": Case(linalg.normalize),
    "power_iteration": Case(vectors),
    "power_iterations": Case(many, gradient=False),
    "power_iterations, sigma": Case(sigma, 1, gradient=False),
    "block_power_iteration": Case(block, gradient=False),
    "stable_rank": Case(linalg.stable_rank),
    "stable_rank_projection k=0": Case(lambda x: linalg.stable_rank_projection(x, 1.5, 0), 1),
    "stable_rank_projection k=2": Case(lambda x: linalg.stable_rank_projection(x, 2.2, 2), 1),
    "stable_rank_scale": Case(lambda x: linalg.stable_rank_scale(x, torch.linalg.svdvals(at_least_float32(x))[0], 1.5)),
    "unit_rows": Case(unit_rows),
    "correlations": Case(linalg.correlations),
    "coherence": Case(linalg.coherence),
    "mean_coherence": Case(linalg.mean_coherence),
    "qr": Case(lambda x: rotations.qr(x[:, :4])),
    "gram_schmidt": Case(lambda x: rotations.gram_schmidt(x[:, :4])),
    "polar": Case(lambda x: rotations.polar(x[:, :4])),
    "polar_newton_schulz": Case(lambda x: rotations.polar_newton_schulz(x[:, :4])),
    "reflections": Case(lambda x: rotations.reflections(x.mT)),
    "thin_svd": Case(lambda x: thin_svd(x)[1], 1),
    "eigh": Case(lambda x: eigh(x)[0], 1, square=True),
    "condition_numbers": Case(lambda x: torch.tensor(condition_numbers(x)["kappa"]), square=True, gradient=False),
    "optimal_learning_rate vector": Case(rate("vector")),
}
for method in get_args(PolarMethod):
    CASES[f"nearest_orthogonal {method}"] = Case(partial(linalg.nearest_orthogonal, method=method), gradient=False)
for method in get_args(SqrtMethod):
    CASES[f"matrix_sqrt {method}"] = Case(partial(linalg.matrix_sqrt, method=method), 0.5, square=True)
for method in get_args(InverseMethod):
    CASES[f"inverse_sqrt {method}"] = Case(partial(linalg.inverse_sqrt, method=method), -0.5, square=True)
for s, options in ((0, {}), (1, {"angular": True}), (2, {"half_space": True}), (3.5, {"reduction": "sum"})):
    CASES[f"hyperspherical_energy {s}"] = Case(partial(linalg.hyperspherical_energy, s=s, **options))


def matrix(case: Case, dtype: torch.dtype) -> Tensor:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x @ x.mT if case.square else x
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_follow_the_scale_from_1e_30_to_1e30(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    x = matrix(case, dtype)
    expected = case.function(x.requires_grad_(case.gradient)).detach()
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(expected)

    def slope(at: Tensor) -> Tensor:
        return torch.autograd.grad((case.function(at) * probe).sum(), at)[0]

    at_one = slope(x) if case.gradient else None
    tolerance = 5e-2 if "polar_express" in name else 3e-4 if dtype == torch.float32 else 1e-9
    for exponent in (-30, -22, -13, -7, 7, 13, 22, 30):
        scale = 10.0**exponent
        scaled = (x.detach() * scale).requires_grad_(case.gradient)
        found = case.function(scaled).detach() / scale**case.degree
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        if at_one is None or (dtype == torch.float32 and abs((case.degree - 1) * exponent) > 33):
            continue  # no gradient, or one that float32 does not hold
        size = float(at_one.abs().max())
        gradient = slope(scaled) / scale ** (case.degree - 1)
        torch.testing.assert_close(gradient / size, at_one / size, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("exponent", [-30, -12, 12, 30])
def test_the_optimal_rate_follows_the_gradient_s_scale_in_both_forms(exponent: int) -> None:
    w, g = (torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    g = g + w
    for form in ("vector", "matrix"):
        expected = float(linalg.optimal_learning_rate(w, g, form))
        found = float(linalg.optimal_learning_rate(w, g * 10.0**exponent, form)) * 10.0**exponent
        assert found == pytest.approx(expected, rel=1e-4)
    # at a weight beside which the identity is nothing, the matrix form is proportional to it
    double = linalg.optimal_learning_rate(w.double() * 1e30, g.double(), "matrix")
    assert float(linalg.optimal_learning_rate(w * 1e30, g, "matrix")) == pytest.approx(float(double), rel=1e-4)


@pytest.mark.parametrize("exponent", [-30, -10, 10, 18])
def test_distances_from_orthogonality_are_right_where_float32_holds_them(exponent: int) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)) * 10.0**exponent
    for function in (linalg.orthogonality_error, linalg.norm_deviation):
        assert float(function(x)) == pytest.approx(float(function(x.double())), rel=1e-5)
    assert float(linalg.norm_deviation(x * 1e12)) == pytest.approx(float(linalg.norm_deviation(x.double() * 1e12)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_zero_matrices_give_numbers_and_finite_gradients(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    if name == "condition_numbers":
        assert condition_numbers(torch.zeros(3, 3, dtype=dtype))["kappa"] == [math.inf]
        return
    x = torch.zeros_like(matrix(case, dtype)).requires_grad_(case.gradient)
    found = case.function(x)
    if name == "optimal_learning_rate vector":
        assert float(found) == math.inf
        return
    assert bool(torch.isfinite(found).all())
    if case.gradient and found.requires_grad and not name.startswith(("thin_svd", "eigh", "stable_rank")):
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_worked_on_in_float32(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    x = matrix(case, dtype)
    found = case.function(x.float() if name.startswith("power_iterations") else x)  # which casts for its callers
    expected = case.function(x.float())
    assert found.dtype == torch.float32
    tolerance = 5e-2 if "polar_express" in name else 1e-3
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("power_iterations")])
def test_complex_matrices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="complex64 matrix: only real"):
        CASES[name].function(matrix(CASES[name], torch.float32).to(torch.complex64))
