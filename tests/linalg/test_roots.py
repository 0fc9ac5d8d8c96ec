"""Matrix roots against known spectra, the Kronecker form of their derivative and the published approximations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg.roots import (
    _lyapunov_by_products,
    condition_numbers,
    inverse_sqrt,
    matrix_sqrt,
)

Root = Callable[..., Tensor]
BASELINES = [(root, "eigh_autograd") for root in (matrix_sqrt, inverse_sqrt)]
ROOTS = [(matrix_sqrt, m) for m in ("eigh", "pade", "taylor", "newton_schulz")]
INVERSES = [(inverse_sqrt, m) for m in ("eigh", "newton_schulz", "pade")]
ALL = ROOTS + INVERSES + BASELINES
each = pytest.mark.parametrize(("root", "method"), ALL, ids=[f"{f.__name__}-{m}" for f, m in ALL])


def basis(n: int, seed: int) -> Tensor:
    noise = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(noise)[0]


def made(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """S of these eigenvalues, its root and its inverse root."""
    q, l = basis(len(values), seed), torch.tensor(values, dtype=torch.float64)  # noqa: E741
    inverse = torch.zeros_like(q) if min(values) == 0 else (q / l.sqrt()) @ q.T
    return (q * l) @ q.T, (q * l.sqrt()) @ q.T, inverse


def gradient(f: Callable[[Tensor], Tensor], at: Tensor, probe: Tensor) -> Tensor:
    x = at.clone().requires_grad_(True)
    (found,) = torch.autograd.grad((f(x) * probe).sum(), x)
    return found


def by_kronecker(root: Tensor, probe: Tensor) -> Tensor:
    """The gradient of <probe, S^(1/2)> from (R x I + I x R) vec(dR) = vec(dS), without a decomposition."""
    eye = torch.eye(len(root), dtype=root.dtype)
    found = torch.linalg.solve(torch.kron(root, eye) + torch.kron(eye, root), probe.flatten()).view_as(root)
    return 0.5 * (found + found.T)


spectra = st.lists(st.sampled_from([0.01, 0.3, 1.0, 1.0, 1.7, 40.0]), min_size=1, max_size=6)


@given(spectra, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_values_and_gradients_are_exact_also_for_repeated_eigenvalues(values: list[float], seed: int) -> None:
    s, root, inverse = made(values, seed)
    for method in ("eigh", "pade", "taylor"):
        torch.testing.assert_close(matrix_sqrt(s, method), root)
    torch.testing.assert_close(inverse_sqrt(s), inverse)
    torch.testing.assert_close(matrix_sqrt(s, "newton_schulz", iterations=25), root, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(inverse_sqrt(s, "newton_schulz", iterations=25), inverse, rtol=1e-6, atol=1e-6)
    probe = torch.randn(len(s), len(s), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(gradient(matrix_sqrt, s, probe), by_kronecker(root, probe))
    expected = -by_kronecker(root, inverse @ probe @ inverse)
    torch.testing.assert_close(gradient(inverse_sqrt, s, probe), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("values", [[0.7, 1.0, 1.4, 2.0], [2.0, 2.0, 2.0], [1.0]], ids=str)
@pytest.mark.parametrize(("root", "method"), [(matrix_sqrt, "eigh"), *INVERSES, (matrix_sqrt, "newton_schulz")])
def test_gradients_of_both_orders(root: Root, method: str, values: list[float]) -> None:
    s = made(values)[0].requires_grad_(True)
    # "pade" has the gradient of the exact root at the approximate one
    tolerance = 1e-3 if method == "pade" else 1e-6
    assert torch.autograd.gradcheck(lambda x: root(x, method), (s,), atol=tolerance)
    assert torch.autograd.gradgradcheck(lambda x: root(x, method), (s,), atol=5 * tolerance)


separate = pytest.mark.parametrize("root", [matrix_sqrt, inverse_sqrt])


@separate
def test_the_baseline_of_the_papers_is_exact_only_for_separate_eigenvalues(root: Root) -> None:
    s = made([0.5, 0.8, 1.4, 3.0])[0].requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: root(x, "eigh_autograd"), (s,))
    assert torch.autograd.gradgradcheck(lambda x: root(x, "eigh_autograd"), (s,))
    torch.testing.assert_close(root(s, "eigh_autograd"), root(s))
    probe = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    near = made([0.5, 1.0, 1.0 + 1e-6, 3.0])[0]
    exact = gradient(root, near, probe)
    stable, baseline = (
        gradient(lambda x, m=m: root(x, m), near.float(), probe.float()) for m in ("eigh", "eigh_autograd")
    )
    torch.testing.assert_close(stable.double(), exact, rtol=1e-4, atol=1e-5)
    assert (baseline - exact).norm() > 30 * (stable - exact).norm()


@separate
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_the_baseline_has_a_finite_gradient_everywhere(root: Root, shift: float) -> None:
    options = {"shift": shift} if root is inverse_sqrt else {}
    probe = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    for s in (torch.eye(3), torch.zeros(3, 3), torch.ones(3, 3), torch.diag(torch.tensor([1.0, 1.0, 4.0]))):
        found = gradient(lambda x: root(x, "eigh_autograd", **options), s, probe)
        assert found.isfinite().all()
    assert root(torch.full((3, 3), torch.nan), "eigh_autograd", **options).isnan().all()


def published(s: Tensor, probe: Tensor, gap: Callable[[Tensor], Tensor]) -> Tensor:
    """The decomposition's gradient with K_ij = gap(l_j / l_i) / l_i, in the authors' two steps."""
    values, u = torch.linalg.eigh(s)
    k = torch.zeros_like(s)
    for i in range(len(values)):
        for j in range(i):  # l_j < l_i
            k[i, j] = gap(values[j] / values[i]) / values[i]
            k[j, i] = -k[i, j]
    by_vectors = (probe + probe.T) @ u * values.sqrt()
    by_values = 0.5 * (u.T @ probe @ u).diagonal() / values.sqrt()
    inner = k.T * (u.T @ by_vectors) + torch.diag(by_values)
    found = u @ inner @ u.T
    return 0.5 * (found + found.T)


@pytest.mark.parametrize("method", ["taylor", "pade"])
def test_the_approximate_gap_is_the_published_one(method: str) -> None:
    gaps: dict[str, Callable[[Tensor], Tensor]] = {
        "taylor": lambda x: torch.stack([x**k for k in range(101)]).sum(),
        "pade": lambda x: 1 / (1 - x),
    }
    s = made([0.5, 0.52, 0.9, 0.901, 3.0])[0]
    probe = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = gradient(lambda x: matrix_sqrt(x, method), s, probe)
    torch.testing.assert_close(found, published(s, probe, gaps[method]))
    exact = gradient(matrix_sqrt, s, probe)
    assert torch.allclose(found, exact, rtol=1e-6) == (method == "pade")  # 0.9 and 0.901 are near for the series


@pytest.mark.parametrize("method", ["taylor", "pade"])
def test_the_approximate_gap_is_exact_for_separate_eigenvalues_and_nothing_for_equal_ones(method: str) -> None:
    probe = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    s = made([0.01, 0.1, 0.5, 0.7])[0]
    found = gradient(lambda x: matrix_sqrt(x, method), s, probe)
    torch.testing.assert_close(found, gradient(matrix_sqrt, s, probe), rtol=1e-6, atol=1e-8)
    equal = gradient(lambda x: matrix_sqrt(x, method), torch.eye(4, dtype=torch.float64), probe)
    torch.testing.assert_close(equal, 0.5 * torch.diag(probe.diagonal()))


def test_the_pade_inverse_is_the_five_five_approximant() -> None:
    series = scipy.special.binom(0.5, np.arange(11)) * (-1.0) ** np.arange(11)  # sqrt(1 - x)
    above, below = scipy.interpolate.pade(series.tolist(), 5)
    s = made([0.0, 0.3, 1.0, 5.0], 3)[0]
    values, q = np.linalg.eigh(s.numpy())
    norm = np.linalg.norm(values)
    x = 1 - values / norm
    expected = (q * (below(x) / above(x) / norm**0.5)) @ q.T
    torch.testing.assert_close(inverse_sqrt(s, "pade"), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
    assert float(torch.linalg.eigvalsh(inverse_sqrt(s, "pade"))[-1]) == pytest.approx(11 / norm**0.5, rel=1e-6)


def test_the_lyapunov_iteration_solves_the_equation() -> None:
    a = made([1.0, 1.0, 3.0, 30.0], 4)[0]
    c = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = scipy.linalg.solve_continuous_lyapunov(a.numpy(), c.numpy())
    torch.testing.assert_close(_lyapunov_by_products(a, c), torch.from_numpy(expected), rtol=1e-6, atol=1e-7)


def test_one_newton_schulz_iteration_written_out() -> None:
    s = made([0.2, 1.0, 2.8])[0]
    a, eye = s / 4, torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(matrix_sqrt(s, "newton_schulz", iterations=1), a @ (3 * eye - a) / 2 * 2)
    torch.testing.assert_close(inverse_sqrt(s, "newton_schulz", iterations=1), (3 * eye - a) / 2 / 2)


@each
@pytest.mark.parametrize("kind", ["zero", "rank 1", "rank 27 of 64", "negative by rounding", "tiny", "one row", "huge"])
def test_degenerate_matrices_have_finite_values_and_gradients(root: Root, method: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 27, generator=generator)
    s = {
        "zero": torch.zeros(5, 5),
        "rank 1": torch.ones(6, 6),
        "rank 27 of 64": x @ x.T,
        "negative by rounding": torch.diag(torch.tensor([-1e-7, 1.0, 2.0])),
        "tiny": 1e-30 * torch.eye(3),
        "one row": torch.tensor([[3.0]]),
        "huge": 1e12 * x @ x.T,
    }[kind].requires_grad_(True)
    out = root(s, method)
    assert torch.isfinite(out).all()
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    assert torch.isfinite(s.grad).all()


def test_a_shift_is_not_lost_beside_a_large_eigenvalue() -> None:
    # the reference's curve starts at lambda_max 3e6 with eps 1e-2: beyond float32 as a sum
    x = torch.randn(64, 27, generator=torch.Generator().manual_seed(0))
    s = x @ x.T
    s = s * (3e6 / torch.linalg.eigvalsh(s)[-1])
    values = torch.linalg.eigvalsh(inverse_sqrt(s, shift=1e-2))
    # null directions come out at rounding level +- 1e-7 * 3e6; those below 0 count as 0
    assert float(values[-1]) == pytest.approx(10, rel=1e-3)
    s.requires_grad_(True)
    inverse_sqrt(s, shift=1e-2).square().sum().backward()
    assert torch.isfinite(s.grad).all()


@each
def test_a_broken_matrix_spoils_only_itself(root: Root, method: str) -> None:
    s = torch.stack([made([1.0, 2.0])[0], torch.full((2, 2), torch.nan, dtype=torch.float64), made([3.0, 4.0])[0]])
    out = root(s, method)
    assert out.isnan().flatten(1).all(1).tolist() == [False, True, False]
    torch.testing.assert_close(out[2], root(s[2], method))


@each
def test_batches_dtypes_and_autocast(root: Root, method: str) -> None:
    s = torch.stack([made([0.5, 1.0, 2.0], k)[0] for k in range(6)]).view(2, 3, 3, 3)
    torch.testing.assert_close(root(s, method)[1, 2], root(s[1, 2], method))
    assert root(s, method).dtype == torch.float64
    torch.testing.assert_close(root(s.float(), method), root(s, method).float(), rtol=1e-4, atol=1e-5)
    assert root(s.bfloat16(), method).dtype == torch.float32
    probe = torch.randn(s.shape)
    plain = gradient(lambda x: root(x, method), s.float(), probe)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(root(s.float(), method), root(s, method).float(), rtol=1e-4, atol=1e-5)
        inside = gradient(lambda x: root(x, method), s.float(), probe)
    if method not in (
        "newton_schulz",
        "eigh_autograd",
    ):  # autograd's backward of plain products is up to where backward() is called
        torch.testing.assert_close(inside, plain)


@each
def test_compiles_into_one_graph_with_two_forwards_before_a_backward(root: Root, method: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: root(x, method), backend="aot_eager", fullgraph=True)
    one, two = (made([0.5, 1.0, 2.0], k)[0].float() for k in (0, 1))
    probe = torch.randn(3, 3)
    both = [x.clone().requires_grad_(True) for x in (one, two)]
    outs = [compiled(x) for x in both]
    sum((out * probe).sum() for out in outs).backward()
    for x, at in zip(both, (one, two), strict=True):
        torch.testing.assert_close(x.grad, gradient(lambda y: root(y, method), at, probe))


def test_condition_numbers() -> None:
    s = torch.stack(
        [made([0.5, 1.0, 2.0])[0], made([0.0, 1.0, 40.0])[0], torch.zeros(3, 3), torch.full((3, 3), torch.nan)]
    )
    found = condition_numbers(s.float(), 0.01)
    assert found["kappa"][:3] == [pytest.approx(4, rel=1e-5), float("inf"), float("inf")]
    assert found["kappa_shifted"][:3] == pytest.approx([2.01 / 0.51, 4001, 1], rel=1e-5)
    assert found["lambda_max"][:3] == pytest.approx([2, 40, 0], rel=1e-5)
    assert all(np.isnan(values[3]) for values in found.values())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="method 'svd': choose eigh, pade, taylor"):
        matrix_sqrt(torch.eye(2), "svd")
    with pytest.raises(ValueError, match="method 'taylor': choose eigh, newton_schulz, pade"):
        inverse_sqrt(torch.eye(2), "taylor")
    with pytest.raises(ValueError, match="iterations is 0"):
        matrix_sqrt(torch.eye(2), "newton_schulz", iterations=0)
    with pytest.raises(ValueError, match=r"shift is -1"):
        inverse_sqrt(torch.eye(2), shift=-1)


@pytest.mark.parametrize("method", ["pade", "taylor"])
def test_second_derivatives_of_a_root_that_has_none_are_an_error(method: str) -> None:
    s = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad((scale * matrix_sqrt(scale * s, method)).sin().sum(), s, create_graph=True)  # pyright: ignore
    # ``scale`` has another path to the gradient, so torch would return a part of the derivative
    with pytest.raises(RuntimeError, match="use method 'eigh'"):
        torch.autograd.grad(first.square().sum(), scale)
