"""Measures of how far the rows or columns of a matrix are from orthonormal. Leading batch dimensions are allowed.

All functions compute in at least float32, also inside autocast. A matrix without rows or columns raises a ValueError.
A zero row has no direction: its cosines are 0, and it gets no gradient from them.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from orthogan.linalg.precision import at_least_float32, magnitude, matrices, without_autocast

Side = Literal["rows", "columns", "smaller"]


def flat(matrix: Tensor, side: Side) -> Tensor:
    """Return ``matrix`` or its transpose, so that the vectors of ``side`` are the rows.

    Raises:
        ValueError: the side is unknown.
    """
    if side not in get_args(Side):
        raise ValueError(f"side is {side!r}: choose one of {', '.join(get_args(Side))}")
    rows = side == "rows" or (side == "smaller" and matrix.shape[-2] <= matrix.shape[-1])
    return matrix if rows else matrix.mT


def gram(matrix: Tensor, side: Side = "rows") -> Tensor:
    """Return the inner products of the rows (..., m, m) or of the columns (..., n, n) of ``matrix`` (..., m, n)."""
    matrix = matrices(matrix)
    with without_autocast(matrix.device):
        vectors = flat(matrix, side)
        return vectors @ vectors.mT


def gram_residual(matrix: Tensor, side: Side = "smaller") -> Tensor:
    """Return Gram - I on ``side``; "smaller" is the side on which it can be zero (rows if m = n).

    Example:
        >>> import torch
        >>> from orthogan.linalg import gram_residual
        >>> gram_residual(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        tensor([[0., 0.],
                [0., 3.]])
    """
    products = gram(matrix, side)
    return products - torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)


def orthogonality_error(matrix: Tensor) -> Tensor:
    """Return ||Gram - I||_F of the smaller side (...). It is 0 exactly if all singular values are 1.

    Example:
        >>> import torch
        >>> from orthogan.linalg import orthogonality_error
        >>> orthogonality_error(torch.diag(torch.tensor([1.0, 2.0])))
        tensor(3.)
    """
    return _norm(gram_residual(matrix).flatten(-2))


def unit_rows(matrix: Tensor) -> Tensor:
    """Return the rows at unit length. A zero row stays zero and gets no gradient (its direction has no derivative)."""
    matrix = at_least_float32(matrix)
    with without_autocast(matrix.device):
        matrix = matrix / magnitude(matrix, -1)
        squares = matrix.square().sum(-1, keepdim=True)
        alive = squares > 0
        return matrix * torch.where(alive, torch.where(alive, squares, 1.0).rsqrt(), 0.0)


def correlations(matrix: Tensor) -> Tensor:
    """Return the cosines between different rows, (..., m(m-1)/2), each pair once: (1,0), (2,0), (2,1), (3,0), ...

    Example:
        >>> import torch
        >>> from orthogan.linalg import correlations
        >>> correlations(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]))
        tensor([0.0000, 0.6000, 0.8000])
    """
    cosines = gram(unit_rows(matrix))
    below = torch.tril_indices(cosines.shape[-1], cosines.shape[-1], -1, device=cosines.device)
    return cosines[..., below[0], below[1]]


def coherence(matrix: Tensor) -> Tensor:
    """Return the largest |cosine| between different rows (...); 0 for a single row.

    Example:
        >>> import torch
        >>> from orthogan.linalg import coherence
        >>> coherence(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        tensor(0.6000)
    """
    cosines = gram(unit_rows(matrix)).tril(-1)
    return cosines.abs().flatten(-2).amax(-1)


def mean_coherence(matrix: Tensor) -> Tensor:
    """Return the mean |cosine| between different rows (...); 0 for a single row.

    Example:
        >>> import torch
        >>> from orthogan.linalg import mean_coherence
        >>> mean_coherence(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])).round(decimals=3)
        tensor(0.4670)
    """
    cosines = gram(unit_rows(matrix))
    m = cosines.shape[-1]
    return cosines.tril(-1).abs().sum((-2, -1)) / max(1, m * (m - 1) // 2)


def norm_deviation(matrix: Tensor) -> Tensor:
    """Return the root mean square of ||row|| - 1 (...).

    Example:
        >>> import torch
        >>> from orthogan.linalg import norm_deviation
        >>> norm_deviation(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).round(decimals=3)
        tensor(1.4140)
    """
    return _norm(_norm(matrices(matrix)) - 1) / math.sqrt(matrix.shape[-2])


def _norm(vectors: Tensor) -> Tensor:
    """Return the norms of vectors (..., n) whose squares may exceed the range of the number format."""
    size = magnitude(vectors, -1)
    # a norm has a subgradient at 0; a square root does not
    return (vectors / size).norm(dim=-1) * size.squeeze(-1)


def welch_bound(m: int, n: int) -> float:
    """Return the lowest possible coherence of m unit vectors in n dimensions.

    It is sqrt((m - n) / (n (m - 1))), and 0 if m <= n (Welch 1974, first bound). Only equiangular tight frames attain
    it.

    Raises:
        ValueError: m or n is below 1.

    Example:
        >>> from orthogan.linalg import welch_bound
        >>> round(welch_bound(m=3, n=2), 4)
        0.5
    """
    if m < 1 or n < 1:
        raise ValueError(f"welch_bound({m}, {n}): the numbers of vectors and dimensions must be at least 1")
    return math.sqrt((m - n) / (n * (m - 1))) if m > n else 0.0
