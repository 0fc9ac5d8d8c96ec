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
    """A list that grows by a word, such as "svd 288 x 288", with each decomposition within that LAPACK gave up."""
    found: list[str] = []
    _WATCHING.append(found)
    try:
        yield found
    finally:
        _WATCHING[:] = [other for other in _WATCHING if other is not found]  # equal ones may be there


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, s, V^T) of (..., m, n), as ``torch.linalg.svd(matrix, full_matrices=False)``, in at least float32.

    Divide and conquer can fail to converge in float32 on a matrix with many nearly equal singular values, such as a
    rotation in training (a 288 x 288 one with values in [0.98, 1.6] was met here). That is done in float64. Where the
    matrix is not finite, neither is the product of the factors, and nothing is raised.

    Raises:
        LinAlgError: not even float64 converges.
        ValueError: a complex matrix.
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
    """(eigenvalues ascending, vectors) of finite symmetric (..., n, n), as ``torch.linalg.eigh``; float64 helps out.

    Raises:
        LinAlgError: not even float64 converges.
        ValueError: a complex matrix.
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
