"""The stable rank of a matrix and its reduction (Sanyal, Torr & Dokania 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.linalg.decompositions import thin_svd
from orthogan.linalg.power import EPS
from orthogan.linalg.precision import at_least_float32, autocast_off, magnitude, matrices

SMALL = 1e-3  # spectral norm below which the gradient of a normalized weight no longer grows as 1 / sigma


def stable_rank(matrix: Tensor) -> Tensor:
    """Return ||W||_F^2 / ||W||_2^2 of (..., m, n), exactly, by singular values; 0 for a zero matrix.

    For any other matrix it is at least 1 and at most the rank. It does not depend on the scale of the matrix.

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


@autocast_off
def stable_rank_projection(matrix: Tensor, r: float, k: int = 1) -> Tensor:
    """Return the matrix nearest to ``matrix`` in Frobenius norm with stable rank ``r`` and the same top k values.

    Let W = S1 + S2, where S1 is the first max(1, k) singular terms. The result is g1 S1 + g2 S2 (paper, theorem 1). For
    k >= 1, g1 = 1 and g2 = sqrt(r s_1^2 - ||S1||_F^2) / ||S2||_F. If the first k values alone exceed r, k is reduced to
    the largest feasible value (algorithm 1). For k = 0 no value is preserved: with
    gamma = sqrt(r - 1) s_1 / ||S2||_F, g2 = (gamma + r - 1) / r and g1 = g2 / gamma, so the largest singular
    value grows. A matrix whose stable rank is at most r is returned unchanged.

    The function is differentiable if the first k + 1 singular values are distinct. For training, see
    ``orthogan.weights.stable_rank_norm``.

    Args:
        matrix: W (..., m, n).
        r: target stable rank, >= 1.
        k: number of singular values to preserve, >= 0.

    Raises:
        ValueError: r is below 1, which is impossible for any matrix, or k is negative.

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
    """Return (head, tail): the sums of squares of the feasible first ``k`` values ``relative`` (..., n), and the rest.

    Values are relative to the largest one. ``total`` (..., 1) is ||W||_F^2 / s_1^2. The i-th value is included if the
    sum up to it is at most r (algorithm 1), so at least one value is included.
    """
    squares = relative[..., :k].square()
    head = torch.where(squares.cumsum(-1) <= r * (1 + 1e-9), squares, 0.0).sum(-1, keepdim=True)
    # without a tail (a row vector, rank k), the clamp keeps the square root of `shrink` differentiable
    return head, (total - head).clamp_min(EPS)


def shrink(room: Tensor | float, tail: Tensor) -> Tensor:
    """Return min(1, sqrt(room / tail)), the factor that reduces the squares ``tail`` to ``room``."""
    if isinstance(room, Tensor):
        # if no room is left for the tail, the gradient of the root would be infinite; it is cut off there anyway
        return torch.where(room > EPS, room.clamp_min(EPS).sqrt() * tail.rsqrt(), 0.0).clamp_max(1.0)
    return (max(room, 0.0) ** 0.5 * tail.rsqrt()).clamp_max(1.0)


def raise_top(gamma: Tensor, r: float) -> tuple[Tensor, Tensor]:
    """Return (g1, g2) for k = 0 from the tail's factor ``gamma`` for k = 1 (paper, theorem 1).

    g1 = (1 + (r - 1) / gamma) / r has the limit 1 at r = 1, where gamma = 0.
    """
    if r <= 1:
        return torch.ones_like(gamma), torch.zeros_like(gamma)
    return (1 + (r - 1) / gamma.clamp_min(EPS)) / r, (gamma + r - 1) / r


def stable_rank_scale(matrix: Tensor, sigma: Tensor, target: float) -> Tensor:
    """Return the factor in [0, 1] on W/sigma - u v^T that reduces the stable rank of W to ``target``.

    For unit u, v with sigma = u^T W v, ||W/sigma - u v^T||_F^2 = ||W||_F^2 / sigma^2 - 1. The factor of Sanyal et al.
    2020, algorithm 2 is therefore min(1, sqrt((r - 1) / (||W||_F^2 / sigma^2 - 1))). It is computed without forming the
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
    # a row vector has no tail: the clamp keeps the square root differentiable
    tail = (matrix.square().sum() / sigma.square().clamp_min(EPS**2) - 1).clamp_min(EPS)
    return shrink(target - 1.0, tail)


def divisor(sigma: Tensor) -> Tensor:
    """Return the divisor for a matrix of (estimated) spectral norm ``sigma``, or 1 if sigma is only rounding error."""
    return torch.where(sigma > EPS, sigma, 1.0)


def damped(inverse: Tensor) -> Tensor:
    """Return the factor of the gradient of W / sigma: ``inverse`` = 1 / sigma, unless the matrix is very small.

    Below ``SMALL`` it decreases from 1 / ``SMALL`` to 1, linearly in sigma. The direction of the gradient does not
    change, but a layer that starts at or near zero does not fill the state of an optimizer such as Adam with huge
    gradients.
    """
    return torch.where(inverse > 1 / SMALL, (SMALL**-2 / inverse).clamp_min(1.0), inverse)


def stable_rank_slopes(sigma: Tensor, squares: Tensor, share: Tensor | float) -> Tensor:
    """Return a and b of the shrunk matrix a W + b u v^T, and the factors of its gradient, elementwise over layers.

    With t = ``stable_rank_scale``, the shrunk matrix is t W / sigma + (1 - t) u v^T. Therefore
    a = 1 / sqrt(max(sigma^2, d)) with d = share * (||W||_F^2 - sigma^2). b = 1 - a sigma if d is the larger value (the
    constraint is active), and 0 otherwise. Let G be the gradient of a loss with respect to the shrunk matrix. The
    gradient with respect to W is a G + h W + e u v^T, with h and e linear in <G, W> and u^T G v, all times d / a. Here
    d is ``damped(a)``.

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
    pull = tilt.clamp_min(0.0)  # -2 da / d||W||^2: the squares matter only if the constraint is active
    turn = tilt * sigma
    b = torch.where(binds, 1 - a * sigma, 0.0)
    back = torch.where(binds, torch.addcmul(d, turn, sigma), 0.0)
    return torch.stack([a, b, -pull, pull * sigma, turn, -back, d, d], -1).unflatten(-1, (4, 2))
