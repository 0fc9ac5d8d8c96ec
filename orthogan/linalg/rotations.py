"""Maps from unconstrained numbers to orthogonal matrices (..., d, d), for orthogonal over-parameterized training.

Every map takes zeros (compact maps) or the identity (square maps) to the identity, so that training starts at the given
weight. Liu et al. 2021 compare these maps. ``qr`` also covers their Householder variant, which differs only in signs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orthogan.linalg.polar import newton_schulz, polar_factor
from orthogan.linalg.precision import (
    at_least_float32,
    differentiates_again,
    magnitude,
    needs_plain,
    second_order,
    without_autocast,
)


def skew(compact: Tensor, size: int) -> Tensor:
    """Return the skew-symmetric matrix (..., size, size) whose upper triangle, row by row, is ``compact``."""
    upper = triangle(compact, size)
    return upper - upper.mT


def triangle(compact: Tensor, size: int) -> Tensor:
    """Return the strictly upper triangular (..., size, size) filled from ``compact`` (..., size (size - 1) / 2)."""
    rows, columns = torch.triu_indices(size, size, 1, device=compact.device)
    flat = compact.new_zeros(*compact.shape[:-1], size * size)
    return flat.index_copy(-1, rows * size + columns, compact).unflatten(-1, (size, size))


def newton_schulz_step(rotation: Tensor) -> Tensor:
    """Run one Newton-Schulz step, which squares the distance of a nearly orthogonal matrix from orthogonality."""
    return rotation - 0.5 * rotation @ (rotation.mT @ rotation - _eye(rotation))


def cayley(compact: Tensor, size: int) -> Tensor:
    """Return (I - A/2)^-1 (I + A/2) for skew-symmetric A: rotations without the eigenvalue -1."""
    half = 0.5 * skew(compact, size)
    eye = _eye(half)
    return newton_schulz_step(torch.linalg.solve(eye - half, eye + half))


def matrix_exp(compact: Tensor, size: int) -> Tensor:
    """Return exp(A) for skew-symmetric A, which covers every rotation."""
    return newton_schulz_step(torch.linalg.matrix_exp(skew(compact, size)))


def householder(compact: Tensor, size: int) -> Tensor:
    """Return the negated product of ``size`` reflections with learned vectors (1 on the diagonal, ``compact`` below).

    H_1 ... H_d = I - V T^-1 V^T with T = striu(V^T V) + diag(V^T V) / 2 (Joffrain et al. 2006): three products and a
    triangular solve, for any number of reflections.
    """
    vectors = triangle(compact, size).mT
    return newton_schulz_step(-reflections(vectors + _eye(vectors)))


def reflections(vectors: Tensor) -> Tensor:
    """Return the first k columns of the product of the reflections along the k columns of ``vectors`` (..., d, k).

    A zero column reflects nothing.
    """
    vectors = at_least_float32(vectors)
    vectors = vectors / magnitude(vectors, -2)
    k = vectors.shape[-1]
    gram = vectors.mT @ vectors
    squares = gram.diagonal(dim1=-2, dim2=-1)
    upper = gram.triu(1) + torch.diag_embed(0.5 * torch.where(squares > 0, squares, 1.0))
    solved = torch.linalg.solve_triangular(upper, vectors[..., :k, :].mT, upper=True)
    return torch.eye(vectors.shape[-2], k, dtype=vectors.dtype, device=vectors.device) - vectors @ solved


def qr(square: Tensor) -> Tensor:
    """Return Q of QR with a positive diagonal of R: Gram-Schmidt of the columns by Householder reflections."""
    square = at_least_float32(square)
    return _plain_qr(square) if needs_plain(square) else _Orthonormal.apply(square)  # pyright: ignore


def gram_schmidt(square: Tensor) -> Tensor:
    """Run Gram-Schmidt on the rows, orthogonalizing each twice; the same map as ``qr`` of the transpose."""
    square = at_least_float32(square)
    return _plain_qr(square.mT).mT if needs_plain(square) else _gram_schmidt(square)


def polar(square: Tensor) -> Tensor:
    """Return Löwdin's symmetric orthogonalization M (M^T M)^-1/2, by SVD."""
    return newton_schulz_step(polar_factor(square))


def polar_newton_schulz(square: Tensor) -> Tensor:
    """Return Löwdin's symmetric orthogonalization by Newton-Schulz to tolerance, with matrix products only."""
    square = at_least_float32(square)
    if needs_plain(square):
        return polar_factor(square)
    tolerance = 1e-6 if square.dtype == torch.float32 else 1e-12
    return newton_schulz(square, tolerance)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _qr_slope(q: Tensor, r: Tensor, gradient: Tensor) -> Tensor:
    """Return dL/dA of A = Q R (R with a positive diagonal) from dL/dQ; r is kept away from singular."""
    m = -gradient.mT @ q
    lower = m.tril() + m.tril(-1).mT
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    top = diagonal.abs().amax(-1, keepdim=True)
    floor = torch.finfo(r.dtype).eps * torch.where(top > 0, top, 1.0) * r.shape[-1]
    r = r.triu(1) + torch.diag_embed(torch.where(diagonal < floor, floor, diagonal))
    return torch.linalg.solve_triangular(r.mT, gradient + q @ lower, upper=False, left=False)


def _positive_qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    q, r = torch.linalg.qr(matrix)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    return q * sign.unsqueeze(-2), r * sign.unsqueeze(-1)


def _plain_qr(matrix: Tensor) -> Tensor:
    """Return Q with the derivatives of torch, which exist for matrices of full rank."""
    return _positive_qr(matrix)[0]


class _Orthonormal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        q, r = _positive_qr(matrix)
        ctx.save_for_backward(matrix, q, r)
        return q

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix, q, r = ctx.saved_tensors
        if differentiates_again():
            return second_order(_plain_qr, gradient, matrix)
        with without_autocast(gradient.device):
            return _qr_slope(q, r, gradient)


@torch.library.custom_op("orthogan::gram_schmidt", mutates_args=())
def _gram_schmidt(matrix: Tensor) -> Tensor:
    matrix = matrix / magnitude(matrix, -1)
    found = torch.zeros_like(matrix)
    size = matrix.shape[-1]
    for i in range(size):
        row = matrix[..., i, :].unsqueeze(-1)
        done = found[..., :i, :]
        length = row.norm(dim=-2, keepdim=True)
        for _ in range(2):  # one pass leaves errors of condition x eps; after a second they are negligible
            row = row - done.mT @ (done @ row)
        # a row in the span of the previous rows leaves only rounding: use the axis farthest from the span
        axis = (1 - done.square().sum(-2)).argmax(-1)
        other = torch.nn.functional.one_hot(axis, size).to(matrix.dtype).unsqueeze(-1)
        for _ in range(2):
            other = other - done.mT @ (done @ other)
        lost = row.norm(dim=-2, keepdim=True) <= 1e-6 * length
        row = torch.where(lost, other, row)
        found[..., i, :] = (row / row.norm(dim=-2, keepdim=True)).squeeze(-1)
    return found


@_gram_schmidt.register_fake
def _(matrix: Tensor) -> Tensor:
    return torch.empty_like(matrix)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _slope(ctx: Any, gradient: Tensor) -> Tensor:
    matrix, found = ctx.saved_tensors
    q = found.mT  # rows of A are columns of A^T = Q R
    with without_autocast(gradient.device):
        return _qr_slope(q, (q.mT @ matrix.mT).triu(), gradient.mT).mT.contiguous()


_gram_schmidt.register_autograd(_slope, setup_context=_keep)
