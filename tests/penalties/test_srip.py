"""SRIP against the exact spectral norm."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg.gram import gram_residual
from orthogan.penalties import srip
from orthogan.penalties.srip import start


def he(m: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, dtype=torch.float64, generator=generator) * (2 / n) ** 0.5


def exact(w: Tensor, side: str) -> Tensor:
    return torch.linalg.matrix_norm(gram_residual(w, side), 2)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6), st.sampled_from(["rows", "columns", "smaller"]))
@settings(max_examples=40, deadline=None)
def test_never_above_the_spectral_norm_and_rising_to_it(m: int, n: int, seed: int, side: str) -> None:
    w = he(m, n, seed)
    true = float(exact(w, side))
    values = [float(srip(w, iterations, side, squared=False)) for iterations in (1, 2, 5, 50, 3000)]
    assert all(before <= after + 1e-9 for before, after in pairwise(values))
    assert values[-1] <= true * (1 + 1e-9)
    assert values[-1] == pytest.approx(true, rel=1e-3)


def test_one_iteration_is_biased_low_as_measured() -> None:
    # reference: true 2.508, one step 1.74 to 1.80, W 64 x 576 by He
    w = he(64, 576)
    true = float(exact(w, "rows"))
    assert true == pytest.approx(2.508, rel=0.05)
    assert float(srip(w, 1, squared=False)) < 0.85 * true
    assert float(srip(w, 200, squared=False)) == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("squared", [True, False])
def test_the_gradient_is_that_of_the_spectral_norm_once_converged(squared: bool) -> None:
    w = he(5, 8).requires_grad_()
    (got,) = torch.autograd.grad(srip(w, 2000, squared=squared), w)
    (want,) = torch.autograd.grad(exact(w, "rows") ** (2 if squared else 1), w)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("m", "n", "side"), [(5, 8, "rows"), (8, 5, "smaller"), (4, 4, "columns")])
def test_the_default_is_the_squared_norm_of_the_authors_and_its_gradient_the_written_formula(
    m: int, n: int, side: str
) -> None:
    w = he(m, n, 3).requires_grad_()
    value = srip(w, 3, side)
    (got,) = torch.autograd.grad(value, w)
    # S = Gram - I, v from three products, r = S v: sigma^2 = |r|^2, with d/dW = 2 (r v^T + v r^T) W on the rows' side
    x = (w if side == "rows" else w.mT).detach()
    s = x @ x.T - torch.eye(len(x), dtype=x.dtype)
    v = torch.linalg.matrix_power(s, 3) @ start(x)
    v = v / v.norm()
    r = s @ v
    assert float(value.detach()) == pytest.approx(float(r @ r), rel=1e-12)
    assert float(srip(w, 3, side, squared=False).detach()) == pytest.approx(float(r.norm()), rel=1e-12)
    want = 2 * (torch.outer(r, v) + torch.outer(v, r)) @ x
    torch.testing.assert_close(got, want if side == "rows" else want.T, rtol=1e-10, atol=1e-12)


def test_opposite_eigenvalues_of_one_size_do_not_cancel() -> None:
    # Gram - I has eigenvalues 1 and -1: v never settles, its length does
    w = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64).sqrt())
    assert float(srip(w, 7)) == pytest.approx(1.0)


def test_orthonormal_rows_give_zero_with_a_finite_gradient() -> None:
    w = torch.eye(3, 5).requires_grad_()
    value = srip(w)
    value.backward()
    assert float(value) == 0
    assert w.grad is not None
    assert (w.grad == 0).all()


def test_the_start_is_fixed_and_without_pattern() -> None:
    long = start(torch.zeros(4096, 1, dtype=torch.float64))
    assert torch.equal(start(torch.zeros(100, 1, dtype=torch.float64)), long[:100])
    assert -1 <= float(long.min()) < -0.99 < 0.99 < float(long.max()) < 1
    assert abs(float(long.mean())) < 0.05
    assert float(long.var()) == pytest.approx(1 / 3, rel=0.05)
    # neither the constant vector nor a wave stands out: overlaps of unit vectors near 1/sqrt(n)
    spectrum = torch.fft.rfft(long).abs() / long.norm() / 4096**0.5
    assert float(spectrum.max()) < 5 / 4096**0.5
    assert float(spectrum.min()) > 0


def test_no_iteration_is_refused() -> None:
    with pytest.raises(ValueError, match="iterations is 0: must be at least 1"):
        srip(torch.eye(2), 0)
