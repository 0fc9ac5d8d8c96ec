"""Singular vectors by power iteration. Matrices may carry leading batch dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from orthogan.linalg.decompositions import thin_svd
from orthogan.linalg.precision import at_least_float32, magnitude, matrices

EPS = 1e-12
SMALLEST = 2.0**-80  # products of matrices with vectors below this may have lost digits in float32


def normalize(vector: Tensor) -> Tensor:
    """``vector`` (..., n) at unit length, in at least float32; a zero vector stays zero.

    Example:
        >>> import torch
        >>> from orthogan.linalg import normalize
        >>> normalize(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    vector = at_least_float32(vector)
    vector = vector / magnitude(vector, -1)
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(EPS)


def power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Unit vectors (u, v) nearer to the top singular pair of ``matrix`` (..., m, n), from ``u`` (..., m).

    Each iteration is v <- W^T u, u <- W v (Miyato et al. 2018, algorithm 1), so that u^T W v = ||W v||. Where a
    product vanishes (a zero matrix, a start orthogonal to its range) u stays what it was: a zero vector would
    stay zero, also after the matrix has changed. At least float32.

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
    """``power_iteration`` on each of many matrices (m_i, n_i) from (m_i,), in few kernels: for the weights of a net.

    All vectors live in the rows of two zero-padded blocks, so that lengths, quotients and choices are one kernel each
    whatever the number of matrices. Neighbors of one shape are multiplied together; so give those of a shape in turn.

    Args:
        stacked: copy neighbors of a shape into one batch for a product (a GPU: launches cost more than copies), or
            multiply one after the other (a CPU).

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
    """W^T u and W W^T u (count, ...) by rows, up to a common factor of a row.

    Args:
        apart: all first products, then all second ones, with a power of two between them that keeps both in the range
            of the numbers. Otherwise one directly after the other: a CPU then has W in its cache for the second.
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
    """Whether no row has vanished or overflowed, nor nearly so; waits for the device."""
    top = products.abs().amax(-1)
    return bool(((top > SMALLEST) & (top < 1 / SMALLEST)).all())


def _multiply(run: Tensor, vectors: Tensor, out: Tensor, row: int) -> None:
    """The products of ``run`` (number, m, n) with the rows of ``vectors`` from ``row`` on, into those of ``out``."""
    number, m, n = run.shape
    if number == 1:
        torch.mv(run[0], vectors[row, :n], out=out[row, :m])
    else:
        out[row : row + number, :m] = (run @ vectors[row : row + number, :n, None]).squeeze(-1)


def block_power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (U, V) nearer to the top k singular vectors of ``matrix`` (..., m, n), largest first.

    Each iteration is V <- orth(W^T U), U <- orth(W V), with orth by Householder QR, which stays orthonormal where
    the product is rank deficient. A last rotation within the blocks (Rayleigh-Ritz: the SVD of the k x k
    matrix U^T W V) tells the vectors apart, so that U^T W V is diagonal, positive and descending.

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
