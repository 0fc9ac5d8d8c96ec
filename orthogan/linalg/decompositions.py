"""LAPACK decompositions that fall back to float64 if they fail, and count the failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from orthogan.linalg.precision import at_least_float32

LinAlgError = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]  # it is public and documented
_WATCHING: list[list[str]] = []


@contextmanager
def failures() -> Iterator[list[str]]:
    """Yield a list that gets one entry, such as "svd 288 x 288", for each decomposition in the block that fails."""
    found: list[str] = []
    _WATCHING.append(found)
    try:
        yield found
    finally:
        _WATCHING[:] = [other for other in _WATCHING if other is not found]  # other lists may be equal to this one


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (U, s, V^T) of (..., m, n), like ``torch.linalg.svd(matrix, full_matrices=False)``, in at least float32.

    In float32, divide and conquer can fail to converge on a matrix with many nearly equal singular values, such as a
    rotation during training (we observed this with a 288 x 288 matrix with values in [0.98, 1.6]). Such a matrix is
    decomposed in float64. If the matrix is not finite, the product of the factors is not finite either, and no error
    is raised.

    Raises:
        LinAlgError: the decomposition fails to converge even in float64.
        ValueError: the matrix is complex.
    """
    matrix = at_least_float32(matrix)
    try:
        return torch.linalg.svd(matrix, full_matrices=False)
    except LinAlgError:
        rows, columns = matrix.shape[-2:]
        _note(f"svd {rows} x {columns}")
        if not bool(torch.isfinite(matrix).all()):
            shapes = (rows, min(rows, columns)), (min(rows, columns),), (min(rows, columns), columns)
            left, values, right = (matrix.new_full((*matrix.shape[:-2], *shape), torch.nan) for shape in shapes)
            return left, values, right
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        return left.to(matrix.dtype), values.to(matrix.dtype), right.to(matrix.dtype)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return (eigenvalues ascending, vectors) of finite symmetric (..., n, n), like ``torch.linalg.eigh``.

    If the decomposition fails, it is repeated in float64.

    Raises:
        LinAlgError: the decomposition fails to converge even in float64.
        ValueError: the matrix is complex.
    """
    matrix = at_least_float32(matrix)
    try:
        return torch.linalg.eigh(matrix)
    except LinAlgError:
        _note(f"eigh {matrix.shape[-1]} x {matrix.shape[-1]}")
        values, vectors = torch.linalg.eigh(matrix.double())
        return values.to(matrix.dtype), vectors.to(matrix.dtype)


def _note(what: str) -> None:
    for found in _WATCHING:
        found.append(what)
