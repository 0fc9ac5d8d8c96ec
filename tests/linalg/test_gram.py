"""Gram residuals, cosines and their bounds against loops and singular values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import gram

shapes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
MEASURES = [
    gram.orthogonality_error,
    gram.coherence,
    gram.mean_coherence,
    gram.norm_deviation,
    gram.correlations,
]


def random(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosines(w: Tensor) -> list[float]:
    return [float(w[i] @ w[j] / (w[i].norm() * w[j].norm())) for i in range(len(w)) for j in range(i)]


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_cosines_are_those_of_a_double_loop(shape: tuple[int, int, int]) -> None:
    w = random(*shape)
    expected = cosines(w)
    torch.testing.assert_close(gram.correlations(w), torch.tensor(expected, dtype=torch.float64))
    assert float(gram.coherence(w)) == pytest.approx(max(map(abs, expected), default=0.0))
    assert float(gram.mean_coherence(w)) == pytest.approx(sum(map(abs, expected)) / max(1, len(expected)))


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_residuals_follow_from_the_singular_values(shape: tuple[int, int, int]) -> None:
    w = random(*shape)
    m, n = w.shape
    off = float((torch.linalg.svdvals(w).square() - 1).square().sum())
    assert float(gram.orthogonality_error(w)) == pytest.approx(math.sqrt(off))
    for side, size in (("rows", m), ("columns", n), ("smaller", min(m, n))):
        residual = gram.gram_residual(w, side)
        assert residual.shape == (size, size)
        # each further vector than the rank adds 1
        assert float(residual.square().sum()) == pytest.approx(off + size - min(m, n))


def test_leading_dimensions_are_a_batch() -> None:
    w = torch.stack([torch.stack([random(4, 3, 2 * i + j) for j in range(2)]) for i in range(3)])
    for measure in MEASURES:
        got = measure(w)
        for i, j in itertools.product(range(3), range(2)):
            torch.testing.assert_close(got[i, j], measure(w[i, j]))


def test_norm_deviation_is_the_root_mean_square() -> None:
    w = torch.diag(torch.tensor([1.0, 4.0, 5.0]))
    assert float(gram.norm_deviation(w)) == pytest.approx(math.sqrt((9 + 16) / 3))


def test_the_welch_bound_holds_and_an_equiangular_frame_reaches_it() -> None:
    assert gram.welch_bound(64, 27) == pytest.approx(0.147, abs=5e-4)  # the reference's figure
    for seed in range(5):
        assert float(gram.coherence(random(9, 4, seed))) >= gram.welch_bound(9, 4)
    angles = torch.arange(3) * 2 * math.pi / 3  # three lines at 120 degrees in the plane
    frame = torch.stack([angles.cos(), angles.sin()], 1)
    assert float(gram.coherence(frame)) == pytest.approx(gram.welch_bound(3, 2), rel=1e-6) == pytest.approx(0.5)
    assert gram.welch_bound(4, 4) == 0
    with pytest.raises(ValueError, match="at least 1"):
        gram.welch_bound(3, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_the_numerical_ones(measure) -> None:
    for w in (random(4, 3), random(2, 5)):
        assert torch.autograd.gradcheck(measure, (w.requires_grad_(),))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "w", [torch.zeros(3, 4), torch.eye(3), torch.ones(1, 4), torch.ones(4, 3), torch.ones(4, 1)], ids=str
)
def test_degenerate_matrices_have_finite_values_and_gradients(measure, w: Tensor) -> None:
    w = w.clone().requires_grad_()
    value = measure(w)
    value.sum().backward()
    assert value.isfinite().all()
    assert w.grad is not None
    assert w.grad.isfinite().all()


def test_a_zero_row_has_no_cosine_and_gets_no_gradient() -> None:
    w = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], requires_grad=True)
    found = gram.correlations(w)
    assert found.tolist() == pytest.approx([0, 0, 0.5**0.5])
    found.sum().backward()
    assert w.grad is not None
    assert w.grad[0].tolist() == [0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_half_precision_is_computed_in_float32_also_under_autocast(measure) -> None:
    w = random(5, 40).bfloat16()
    expected = measure(w.float())
    assert expected.dtype == torch.float32
    assert torch.equal(measure(w), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(measure(w), expected)
        assert torch.equal(measure(w.float()), expected)
    assert measure(w.double()).dtype == torch.float64


def test_compiles_into_one_graph() -> None:
    def everything(w: Tensor) -> Tensor:
        return torch.stack([measure(w).sum() for measure in MEASURES])

    w = random(5, 3)
    torch.testing.assert_close(torch.compile(everything, backend="aot_eager", fullgraph=True)(w), everything(w))


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side is 'left': choose one of rows, columns, smaller"):
        gram.gram_residual(torch.eye(2), "left")
