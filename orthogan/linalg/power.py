"""Singular vectors by power iteration. Matrices may have leading batch dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from orthogan.linalg.decompositions import thin_svd
from orthogan.linalg.precision import at_least_float32, autocast_off, magnitude, matrices

EPS = 1e-12
SMALLEST = 2.0**-80  # matrix-vector products below this may have lost digits in float32


def normalize(vector: Tensor) -> Tensor:
    """Return ``vector`` (..., n) at unit length, in at least float32. A zero vector stays zero.

    Example:
        >>> import torch
        >>> from orthogan.linalg import normalize
        >>> normalize(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    vector = at_least_float32(vector)
    vector = vector / magnitude(vector, -1)
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(EPS)


@autocast_off
def power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return unit vectors (u, v) closer to the top singular pair of ``matrix`` (..., m, n), starting at ``u`` (..., m).

    Each iteration is v <- W^T u, u <- W v (Miyato et al. 2018, algorithm 1), so that u^T W v = ||W v||. If a product is
    zero (a zero matrix, or a start orthogonal to its range), u does not change, because a zero vector would stay zero
    even after the matrix has changed. The computation uses at least float32.

    Source: Miyato et al. 2018, algorithm 1, arXiv:1802.05957.

    Example:
        >>> import torch
        >>> from orthogan.linalg import power_iteration
        >>> matrix = torch.diag(torch.tensor([3.0, 1.0]))
        >>> u, v = power_iteration(matrix, torch.tensor([1.0, 1.0]), iterations=20)
        >>> (u @ matrix @ v).round(decimals=4)
        tensor(3.)
    """
    matrix, u = matrices(matrix), at_least_float32(u)
    v = torch.zeros_like(matrix[..., 0, :])
    for _ in range(iterations):
        v = normalize((matrix.mT @ u.unsqueeze(-1)).squeeze(-1))
        product = (matrix @ v.unsqueeze(-1)).squeeze(-1)
        product = product / magnitude(product, -1)
        size = product.norm(dim=-1, keepdim=True)
        u = torch.where(size > 0, product / size.clamp_min(EPS), u)
    return u, v


def power_iterations(
    matrices: Sequence[Tensor], starts: Sequence[Tensor], iterations: int, *, stacked: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run ``power_iteration`` on many matrices (m_i, n_i) with starts (m_i,) in few kernels, for the weights of a net.

    All vectors are rows of two zero-padded blocks, so that norms, divisions and selections take one kernel each,
    whatever the number of matrices. Consecutive matrices of the same shape are multiplied together, so pass matrices of
    the same shape one after another.

    Args:
        stacked: copy consecutive matrices of the same shape into one batch for a product (for a GPU, where launches
            cost more than copies), or multiply them one by one (for a CPU).

    Returns:
        u (count, max m_i) and v (count, max n_i), zero beyond their own lengths, and sigma = ||W v|| (count,).
    """
    runs: list[tuple[int, Tensor]] = []  # the first row, and (number, m, n) of a run of equal shapes
    for _, run in groupby(enumerate(matrices), key=lambda item: item[1].shape):
        rows, alike = zip(*run, strict=True)
        if stacked and len(alike) > 1:
            runs.append((rows[0], torch.stack(alike)))
        else:
            runs += [(row, one.unsqueeze(0)) for row, one in zip(rows, alike, strict=True)]
    count, like = len(matrices), matrices[0]
    tall, wide = (max(one.shape[side] for one in matrices) for side in (0, 1))
    u, v, size = like.new_zeros(count, tall), like.new_zeros(count, wide), like.new_zeros(count, 1)
    filled = [row[: len(start)] for row, start in zip(u.unbind(), starts, strict=True)]
    torch._foreach_copy_(filled, list(starts))  # pyright: ignore
    for _ in range(iterations):
        v, product = _both(runs, u, wide, apart=stacked)
        if not stacked and not _usual(product):
            v, product = _both(runs, u, wide, apart=True)
        scale = magnitude(product, -1)
        length = v.norm(dim=-1, keepdim=True).clamp_min(EPS)
        v, product = v / length, product / scale / length
        size = product.norm(dim=-1, keepdim=True)
        u = torch.where(size > 0, product / size.clamp_min(EPS), u)
        size = size * scale
    return u, v, size.squeeze(-1)


def _both(runs: Sequence[tuple[int, Tensor]], u: Tensor, wide: int, *, apart: bool) -> tuple[Tensor, Tensor]:
    """Return W^T u and W W^T u (count, ...) as rows, up to a common factor per row.

    Args:
        apart: compute all first products, then all second ones, with a power of two between them that keeps both in
            the range of the number format. Otherwise, compute the second product of a matrix directly after the first:
            a CPU then still has W in its cache.
    """
    v, product = u.new_zeros(len(u), wide), torch.zeros_like(u)
    for row, run in runs:
        _multiply(run.mT, u, v, row)
        if not apart:
            _multiply(run, v, product, row)
    if apart:
        v = v / magnitude(v, -1)
        for row, run in runs:
            _multiply(run, v, product, row)
    return v, product


def _usual(products: Tensor) -> bool:
    """Return whether no row is zero or has overflowed, or nearly so. This waits for the device."""
    top = products.abs().amax(-1)
    return bool(((top > SMALLEST) & (top < 1 / SMALLEST)).all())


def _multiply(run: Tensor, vectors: Tensor, out: Tensor, row: int) -> None:
    """Multiply ``run`` (number, m, n) with the rows of ``vectors`` from ``row`` on, and write to those of ``out``."""
    number, m, n = run.shape
    if number == 1:
        torch.mv(run[0], vectors[row, :n], out=out[row, :m])
    else:
        out[row : row + number, :m] = (run @ vectors[row : row + number, :n, None]).squeeze(-1)


@autocast_off
def block_power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return orthonormal columns (U, V) closer to the top k singular vectors of ``matrix`` (..., m, n), largest first.

    Each iteration is V <- orth(W^T U), U <- orth(W V). orth is a Householder QR, which stays orthonormal even if the
    product is rank deficient. A final rotation within the blocks (Rayleigh-Ritz: the SVD of the k x k matrix U^T W V)
    separates the vectors, so that U^T W V is diagonal, positive and descending.

    Args:
        u: start (..., m, k) with 1 <= k <= min(m, n).

    Example:
        >>> import torch
        >>> from orthogan.linalg import block_power_iteration
        >>> matrix = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
        >>> start = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
        >>> u, v = block_power_iteration(matrix, start, iterations=30)
        >>> (u.T @ matrix @ v).round(decimals=3).abs()
        tensor([[4., 0.],
                [0., 2.]])
    """
    matrix, u = matrices(matrix), at_least_float32(u)
    matrix = matrix / magnitude(matrix, -2, -1)
    v = torch.linalg.qr(matrix.mT @ u)[0]
    for _ in range(iterations):
        u = torch.linalg.qr(matrix @ v)[0]
        v = torch.linalg.qr(matrix.mT @ u)[0]
    left, _, right = thin_svd(u.mT @ matrix @ v)
    return u @ left, v @ right.mT
