"""The hyperspherical energy of the rows of a matrix (Liu et al. 2018, MHE; Liu et al. 2021, OPT)."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from orthogan.linalg.gram import unit_rows
from orthogan.linalg.precision import matrices, needs_plain, without_autocast


def hyperspherical_energy(
    matrix: Tensor,
    s: float = 1.0,
    *,
    angular: bool = False,
    half_space: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    chunk: int = 1024,
) -> Tensor:
    """Return the hyperspherical energy (...) of the rows of ``matrix`` (..., m, n); low values mean even directions.

    The energy is the sum over ordered pairs i != j of d_ij^-s, or of log(1/d_ij) for s = 0, where d_ij is the distance
    between the rows normalized to unit length. It does not depend on rotations or on the lengths of the rows. For
    independent Gaussian rows, the mean at s = 2 is (n - 2) / (2 (n - 3)). The energy of a single row is 0. A zero row
    has no direction and is treated as orthogonal to all rows. Coincident rows have a large finite energy and no
    gradient.

    Memory use is about 10 * chunk * m numbers, for any m: the function processes one block of rows at a time and
    recomputes it in the backward pass.

    Args:
        s: 0, 1, 2 or any other number >= 0.
        angular: use the angle [radians] as d_ij instead of the distance.
        half_space: add the negative of every row, so that rows repel lines rather than points. m becomes 2m, and the
            pair of a row and its own negative counts like every other pair.
        reduction: "mean" over pairs, or "sum" over ordered pairs.
        chunk: number of rows per block.

    Raises:
        ValueError: s or chunk is out of range, the reduction is unknown, or the matrix has no rows or no columns.

    Source: Liu et al. 2018, arXiv:1805.09298.

    Example:
        >>> import torch
        >>> from orthogan.linalg import hyperspherical_energy
        >>> even = hyperspherical_energy(torch.eye(3))
        >>> close = hyperspherical_energy(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [1.0, 0.0, 0.1]]))
        >>> bool(even < close)
        True
    """
    if not 0 <= s < math.inf:
        raise ValueError(f"s is {s}: the exponent of the energy must be at least 0 (papers: 0, 1 or 2)")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: must be at least 1")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: choose mean or sum")
    matrix = matrices(matrix)
    with without_autocast(matrix.device):
        rows = unit_rows(matrix)
        others = torch.cat([rows, -rows], -2) if half_space else rows
        block = partial(_block, s=float(s), angular=angular)
        total = torch.zeros_like(rows[..., 0, 0])
        # otherwise the first call would import torch._dynamo; torch.func does not support checkpoints
        if rows.requires_grad and torch.is_grad_enabled() and not needs_plain(rows):
            once = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
        else:
            once = block
        for start in range(0, rows.shape[-2], chunk):
            total = total + once(rows[..., start : start + chunk, :], others, start)
        # by symmetry, a negative row has the same energy as its row
        total = 2 * total if half_space else total
        count = others.shape[-2]
        return total if reduction == "sum" else total / max(1, count * (count - 1))


def _block(rows: Tensor, others: Tensor, start: int, *, s: float, angular: bool) -> Tensor:
    """Return the energy between ``rows``, which start at row ``start`` of ``others``, and all of ``others`` (...)."""
    cosines = rows @ others.mT
    info = torch.finfo(cosines.dtype)
    # rounding error of d^2 for a coincident pair; larger if the power would overflow for a large s
    floor = max(8 * info.eps, info.max ** (-1.5 / s) if s else 0.0)
    if angular:
        squares = cosines.clamp(floor / 2 - 1, 1 - floor / 2).arccos().square()
    else:
        squares = (2 - 2 * cosines).clamp_min(floor)
    itself = torch.arange(start, start + rows.shape[-2], device=rows.device).unsqueeze(-1)
    itself = itself == torch.arange(others.shape[-2], device=rows.device)
    squares = squares.masked_fill(itself, 1.0)  # log 1 = 0
    energy = -0.5 * squares.log() if s == 0 else squares.pow(-0.5 * s).masked_fill(itself, 0.0)
    return energy.sum((-2, -1))
