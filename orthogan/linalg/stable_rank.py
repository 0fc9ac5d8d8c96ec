"""The stable rank of a matrix and how it is brought down (Sanyal, Torr & Dokania 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.linalg.decompositions import thin_svd
from orthogan.linalg.power import EPS
from orthogan.linalg.precision import at_least_float32, magnitude, matrices

SMALL = 1e-3  # spectral norm below which the gradient of a normalized weight no longer grows as 1 / sigma


def stable_rank(matrix: Tensor) -> Tensor:
    """||W||_F^2 / ||W||_2^2 of (..., m, n), exactly by singular values; 0 for a zero matrix.

    At least 1 and at most the rank of any other matrix, and the same at every scale of it.

    Example:
        >>> import torch
        >>> from orthogan.linalg import stable_rank
        >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).round(decimals=4)
        tensor(1.5000)
    """
    matrix = matrices(matrix)
    squares = torch.linalg.svdvals(matrix / magnitude(matrix, -2, -1)).square()
    top = squares[..., 0]
    return torch.where(top > 0, squares.sum(-1) / top.clamp_min(torch.finfo(top.dtype).tiny), 0.0)


def stable_rank_projection(matrix: Tensor, r: float, k: int = 1) -> Tensor:
    """The matrix nearest to ``matrix`` in Frobenius norm that has stable rank ``r`` and the same top k values.

    With W = S1 + S2, S1 the first max(1, k) singular terms, the answer is g1 S1 + g2 S2 (paper, theorem 1):
    for k >= 1, g1 = 1 and g2 = sqrt(r s_1^2 - ||S1||_F^2) / ||S2||_F. Where the first k values alone exceed r,
    k falls to the largest that is feasible (algorithm 1). For k = 0 nothing is held: with
    gamma = sqrt(r - 1) s_1 / ||S2||_F, g2 = (gamma + r - 1) / r and g1 = g2 / gamma, so the largest singular
    value grows. A matrix whose stable rank is r or less comes back unchanged.

    Differentiable where the first k + 1 singular values are distinct; for training see
    ``orthogan.weights.stable_rank_norm``.

    Args:
        matrix: W (..., m, n).
        r: wanted stable rank, >= 1.
        k: how many singular values are preserved, >= 0.

    Raises:
        ValueError: r below 1, which no matrix has, or a negative k.

    Source: Sanyal, Torr & Dokania 2020, arXiv:1906.04659.

    Example:
        >>> import torch
        >>> from orthogan.linalg import stable_rank, stable_rank_projection
        >>> matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0]))
        >>> stable_rank(stable_rank_projection(matrix, r=1.5)).round(decimals=4)
        tensor(1.5000)
    """
    if r < 1:
        raise ValueError(f"r is {r}: must be at least 1, the smallest stable rank of a nonzero matrix")
    if k < 0:
        raise ValueError(f"k is {k}: the number of preserved singular values must be 0 or more")
    matrix = matrices(matrix)
    size = magnitude(matrix, -2, -1)
    left, values, right = thin_svd(matrix / size)
    relative = values / values[..., :1].clamp_min(EPS)
    head, tail = preserved(relative, relative.square().sum(-1, keepdim=True), r, max(1, k))
    tail_scale = shrink(r - head, tail)
    head_scale = torch.ones_like(tail_scale)
    if k == 0:
        head_scale, tail_scale = raise_top(tail_scale, r)
    first = torch.arange(values.shape[-1], device=values.device) < max(1, k)
    scale = torch.where(first & (relative.square().cumsum(-1) <= r * (1 + 1e-9)), head_scale, tail_scale)
    return (left * (values * scale).unsqueeze(-2)) @ right * size


def preserved(relative: Tensor, total: Tensor, r: float, k: int) -> tuple[Tensor, Tensor]:
    """(head, tail): summed squares of the feasible first ``k`` of the values ``relative`` (..., n) and of the rest.

    Values are relative to the largest; ``total`` (..., 1) is ||W||_F^2 / s_1^2. The i-th is taken while the sum up
    to it is at most r (algorithm 1), so at least one is.
    """
    squares = relative[..., :k].square()
    head = torch.where(squares.cumsum(-1) <= r * (1 + 1e-9), squares, 0.0).sum(-1, keepdim=True)
    # no tail (a row vector, rank k): the clamp keeps the square root of `shrink` differentiable there
    return head, (total - head).clamp_min(EPS)


def shrink(room: Tensor | float, tail: Tensor) -> Tensor:
    """min(1, sqrt(room / tail)): the factor that brings the squares ``tail`` down to ``room``."""
    if isinstance(room, Tensor):
        # where nothing is left for the tail the root's slope would be infinite, and it is cut off anyway
        return torch.where(room > EPS, room.clamp_min(EPS).sqrt() * tail.rsqrt(), 0.0).clamp_max(1.0)
    return (max(room, 0.0) ** 0.5 * tail.rsqrt()).clamp_max(1.0)


def raise_top(gamma: Tensor, r: float) -> tuple[Tensor, Tensor]:
    """(g1, g2) of k = 0 from the tail's factor ``gamma`` of k = 1 (paper, theorem 1).

    g1 = (1 + (r - 1) / gamma) / r has the limit 1 at r = 1, where gamma = 0.
    """
    if r <= 1:
        return torch.ones_like(gamma), torch.zeros_like(gamma)
    return (1 + (r - 1) / gamma.clamp_min(EPS)) / r, (gamma + r - 1) / r


def stable_rank_scale(matrix: Tensor, sigma: Tensor, target: float) -> Tensor:
    """The factor in [0, 1] on W/sigma - u v^T that brings the stable rank of W down to ``target``.

    For unit u, v with sigma = u^T W v, ||W/sigma - u v^T||_F^2 = ||W||_F^2 / sigma^2 - 1, so the factor of Sanyal
    et al. 2020, algorithm 2 is min(1, sqrt((r - 1) / (||W||_F^2 / sigma^2 - 1))), without forming the
    difference and without a branch.

    Args:
        matrix: W (m, n).
        sigma: its (estimated) spectral norm, a 0-d tensor.
        target: r >= 1.

    Source: Sanyal, Torr & Dokania 2020, arXiv:1906.04659.

    Example:
        >>> import torch
        >>> from orthogan.linalg import stable_rank_scale
        >>> matrix = torch.eye(4)
        >>> stable_rank_scale(matrix, sigma=torch.tensor(1.0), target=1.75).round(decimals=4)
        tensor(0.5000)
    """
    matrix, sigma = matrices(matrix), at_least_float32(sigma)
    size = magnitude(matrix, -2, -1)
    matrix, sigma = matrix / size, sigma / size.reshape(sigma.shape)
    # a row vector has no tail: the clamp keeps the square root differentiable there
    tail = (matrix.square().sum() / sigma.square().clamp_min(EPS**2) - 1).clamp_min(EPS)
    return shrink(target - 1.0, tail)


def divisor(sigma: Tensor) -> Tensor:
    """What a matrix of the (estimated) spectral norm ``sigma`` is divided by: 1 where that is nothing but rounding."""
    return torch.where(sigma > EPS, sigma, 1.0)


def damped(inverse: Tensor) -> Tensor:
    """The factor of the gradient of W / sigma, from ``inverse`` = 1 / sigma: that itself for any usual matrix.

    Below ``SMALL`` it falls from 1 / ``SMALL`` to 1, linearly in sigma. The direction stays what it is, but a layer
    that starts at zero, or nearly so, does not fill the memory of an optimizer such as Adam with huge gradients.
    """
    return torch.where(inverse > 1 / SMALL, (SMALL**-2 / inverse).clamp_min(1.0), inverse)


def stable_rank_slopes(sigma: Tensor, squares: Tensor, share: Tensor | float) -> Tensor:
    """a and b of the shrunk matrix a W + b u v^T, and what its gradient needs; elementwise, for any number of layers.

    With t = ``stable_rank_scale`` the shrunk matrix is t W / sigma + (1 - t) u v^T. So
    a = 1 / sqrt(max(sigma^2, d)), d = share * (||W||_F^2 - sigma^2), and b = 1 - a sigma where d is the larger (the
    constraint binds), else 0. For the gradient G of a loss by the shrunk matrix, that by W is
    a G + h W + e u v^T, with h and e linear in <G, W> and u^T G v; all of it times d / a, d = ``damped(a)``.

    Args:
        sigma: u^T W v (...).
        squares: ||W||_F^2 (...).
        share: 1 / (target - 1), or 0 for no bound on the stable rank.

    Returns:
        (..., 4, 2): the rows (a, b), the factors of (<G, W>, u^T G v) in h, those in e, and (d, d).
    """
    square = sigma.square()
    spread = (squares - square) * share
    binds = spread > square
    larger = torch.maximum(square, spread)
    a = torch.where(larger > EPS**2, larger, 1.0).rsqrt()
    d = damped(a)
    cube = a.pow(3) * (d / a)
    tilt = torch.where(binds, cube * share, -cube)  # (da / dsigma) / sigma
    pull = tilt.clamp_min(0.0)  # -2 da / d||W||^2: the squares matter only where it binds
    turn = tilt * sigma
    b = torch.where(binds, 1 - a * sigma, 0.0)
    back = torch.where(binds, torch.addcmul(d, turn, sigma), 0.0)
    return torch.stack([a, b, -pull, pull * sigma, turn, -back, d, d], -1).unflatten(-1, (4, 2))
