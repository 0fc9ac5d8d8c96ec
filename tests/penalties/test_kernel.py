"""Gram penalties against closed forms, and what published codes get wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.penalties import double_soft_orthogonality, mutual_coherence, off_diagonal, soft_orthogonality


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grams(w: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals of both sides, an entry at a time."""
    rows = torch.tensor([[float(a @ b) - (i == j) for j, b in enumerate(w)] for i, a in enumerate(w)])
    columns = torch.tensor([[float(a @ b) - (i == j) for j, b in enumerate(w.T)] for i, a in enumerate(w.T)])
    return rows.double(), columns.double()


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_values_are_those_of_the_entries(out: int, channels: int, seed: int) -> None:
    weight = random(out, channels, 2, 1, seed=seed)
    rows, columns = grams(weight.reshape(out, -1))
    smaller = rows if out <= 2 * channels else columns
    for side, residual in (("rows", rows), ("columns", columns), ("smaller", smaller)):
        frobenius = sum(float(x) ** 2 for x in residual.flatten())
        assert float(soft_orthogonality(weight, side)) == pytest.approx(frobenius, rel=1e-5)
        entry = max(abs(float(x)) for x in residual.flatten())
        assert float(mutual_coherence(weight, side=side)) == pytest.approx(entry, rel=1e-5)
        row = max(sum(abs(float(x)) for x in line) for line in residual)
        assert float(mutual_coherence(weight, "row_sum", side)) == pytest.approx(row, rel=1e-5)
    both = float(rows.square().sum() + columns.square().sum())
    assert float(double_soft_orthogonality(weight)) == pytest.approx(both, rel=1e-5)


def test_orthonormal_weights_reach_the_floors() -> None:
    tall = torch.linalg.qr(random(7, 4)).Q
    for weight in (tall, tall.mT):
        assert float(soft_orthogonality(weight)) == pytest.approx(0, abs=1e-20)
        assert float(double_soft_orthogonality(weight)) == pytest.approx(3)
    assert float(soft_orthogonality(tall, "rows")) == pytest.approx(3)
    assert float(soft_orthogonality(tall, "columns")) == pytest.approx(0, abs=1e-20)


def test_the_smaller_side_is_by_fan_in_and_not_by_channels() -> None:
    # dnn_orthogonality compares shape[0] with shape[1]; 8 filters of 4 channels, 3x3, have 36 dimensions
    weight = random(8, 4, 3, 3)
    torch.testing.assert_close(soft_orthogonality(weight), soft_orthogonality(weight, "rows"))
    weight = random(8, 3, 1, 1)
    torch.testing.assert_close(soft_orthogonality(weight), soft_orthogonality(weight, "columns"))


def test_the_papers_form_is_the_rows_side() -> None:
    weight = random(5, 2, 3, 3)
    w = weight.reshape(5, -1).T  # (fan_in, out), as the paper has it
    torch.testing.assert_close(soft_orthogonality(weight, "rows"), (w.T @ w - torch.eye(5)).square().sum())


def test_off_diagonal_has_the_true_gradient_which_biggan_halves() -> None:
    weight = random(6, 3, 2, 2).requires_grad_()
    w = weight.detach().reshape(6, -1)
    off = (w @ w.T) * (1 - torch.eye(6, dtype=w.dtype))
    value = off_diagonal(weight)
    torch.testing.assert_close(value, off.square().sum())
    (gradient,) = torch.autograd.grad(value, weight)
    published = 2 * off @ w  # what BigGAN's code adds to the gradient
    torch.testing.assert_close(gradient.reshape(6, -1), 2 * published)


def test_off_diagonal_leaves_the_lengths_free() -> None:
    weight = torch.diag(torch.tensor([1.0, 5.0, 0.1])).requires_grad_()
    value = off_diagonal(weight)
    value.backward()
    assert float(value) == 0
    assert weight.grad is not None
    assert (weight.grad == 0).all()


def test_the_off_diagonal_mask_is_not_a_broadcast_vector() -> None:
    # dnn_orthogonality subtracts torch.diag(m), a vector, from every row: its loss is not 0 here
    weight = 2 * torch.eye(3)
    m = weight @ weight.T
    assert float((m - torch.diag(m)).square().sum()) > 0
    assert float(off_diagonal(weight)) == 0


def test_vectors_and_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        soft_orthogonality(torch.ones(3))
    with pytest.raises(ValueError, match="reading is 'rows'"):
        mutual_coherence(torch.eye(2), "rows")
    with pytest.raises(ValueError, match="side is 'out'"):
        soft_orthogonality(torch.eye(2), "out")
