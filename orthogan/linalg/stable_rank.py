"""The stable rank of a matrix and how it is brought down (Sanyal, Torr & Dokania 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.linalg.power import EPS


def stable_rank(matrix: Tensor) -> Tensor:
    """||W||_F^2 / ||W||_2^2 of (..., m, n), exactly by singular values; 0 for a zero matrix.

    At least 1 and at most the rank of any other matrix, and the same at every scale of it.
    """
    squares = torch.linalg.svdvals(matrix).square()
    top = squares[..., 0]
    return torch.where(top > 0, squares.sum(-1) / top.clamp_min(torch.finfo(top.dtype).tiny), 0.0)


def stable_rank_scale(matrix: Tensor, sigma: Tensor, target: float) -> Tensor:
    """The factor in [0, 1] on W/sigma - u v^T that brings the stable rank of W down to ``target``.

    For unit u, v with sigma = u^T W v, ||W/sigma - u v^T||_F^2 = ||W||_F^2 / sigma^2 - 1, so the factor of Sanyal
    et al. 2020, algorithm 2 is min(1, sqrt((r - 1) / (||W||_F^2 / sigma^2 - 1))), without forming the
    difference and without a branch.

    Args:
        matrix: W (m, n).
        sigma: its (estimated) spectral norm, a 0-d tensor.
        target: r >= 1.
    """
    # a row vector has no tail: the clamp keeps the square root differentiable there
    tail = (matrix.square().sum() / sigma.square().clamp_min(EPS) - 1).clamp_min(EPS)
    return (max(target - 1.0, 0.0) ** 0.5 * tail.rsqrt()).clamp_max(1.0)
