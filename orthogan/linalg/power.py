"""Singular vectors by power iteration. Matrices may carry leading batch dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def normalize(vector: Tensor) -> Tensor:
    """``vector`` (..., n) at unit length; a zero vector stays zero."""
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(EPS)


def power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Unit vectors (u, v) nearer to the top singular pair of ``matrix`` (..., m, n), from ``u`` (..., m).

    Each iteration is v <- W^T u, u <- W v (Miyato et al. 2018, algorithm 1), so that u^T W v = ||W v||. Where a
    product vanishes (a zero matrix, a start orthogonal to its range) u stays what it was: a zero vector would
    stay zero for ever, also once the matrix has changed.
    """
    v = torch.zeros_like(matrix[..., 0, :])
    for _ in range(iterations):
        v = normalize((matrix.mT @ u.unsqueeze(-1)).squeeze(-1))
        product = (matrix @ v.unsqueeze(-1)).squeeze(-1)
        size = product.norm(dim=-1, keepdim=True)
        u = torch.where(size > EPS, product / size.clamp_min(EPS), u)
    return u, v


def block_power_iteration(matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (U, V) nearer to the top k singular vectors of ``matrix`` (..., m, n), largest first.

    Each iteration is V <- orth(W^T U), U <- orth(W V), with orth by Householder QR, which stays orthonormal where
    the product is rank deficient. A last rotation within the blocks (Rayleigh-Ritz: the SVD of the k x k
    matrix U^T W V) tells the vectors apart, so that U^T W V is diagonal, positive and descending.

    Args:
        u: start (..., m, k) with 1 <= k <= min(m, n).
    """
    v = torch.linalg.qr(matrix.mT @ u)[0]
    for _ in range(iterations):
        u = torch.linalg.qr(matrix @ v)[0]
        v = torch.linalg.qr(matrix.mT @ u)[0]
    left, _, right = torch.linalg.svd(u.mT @ matrix @ v)
    return u @ left, v @ right.mT
