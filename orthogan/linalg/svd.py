"""The thin singular value decomposition, where LAPACK's own gives up too."""

from __future__ import annotations

import torch
from torch import Tensor


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, s, V^T) of (..., m, n), as ``torch.linalg.svd(matrix, full_matrices=False)``.

    Where the matrix is not finite, neither is their product, and nothing is raised.

    Divide and conquer can fail to converge in float32 on a matrix with many nearly equal singular values, such as a
    rotation in training (a 288 x 288 one with values in [0.98, 1.6] was met here). That is done in float64.

    Raises:
        torch.linalg.LinAlgError: not even that converges.
    """
    try:
        return torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:
        if not bool(torch.isfinite(matrix).all()):
            rows, columns = matrix.shape[-2:]
            shapes = (rows, min(rows, columns)), (min(rows, columns),), (min(rows, columns), columns)
            left, values, right = (matrix.new_full((*matrix.shape[:-2], *shape), torch.nan) for shape in shapes)
            return left, values, right
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        return left.to(matrix.dtype), values.to(matrix.dtype), right.to(matrix.dtype)
