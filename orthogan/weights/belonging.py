"""Check whether stored singular vectors belong to a weight, and compute new ones if they do not.

A weight that was assigned, loaded without its vectors, or written in place no longer matches the stored vectors.
u^T W v then says nothing about its spectral norm, and the power iterations of a forward pass would need many steps to
catch up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from orthogan.linalg import block_power_iteration, normalize, power_iteration
from orthogan.linalg.precision import magnitude, transformed

TOLERANCE = 1e-2  # relative error up to which an estimate of a spectral norm is accepted
SAME = 1e-4  # distance below which two unit vectors count as equal up to rounding
PROBES = 3  # power iterations from a fixed random start, to find a larger value than the vectors give
EXTRA, ROUNDS = 7, 50  # block power iteration: additional vectors, and number of iterations


def can_look(tensor: Tensor) -> bool:
    """Return whether code may branch on the values of ``tensor``: not during tracing, and not on a meta tensor."""
    traced = (
        torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or isinstance(tensor, FakeTensor)
    )
    return not (traced or tensor.is_meta or transformed(tensor))


@torch.no_grad()
def belong(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return whether u and v were iterated on this ``matrix`` (..., m, n) or are close to its top singular vectors.

    In the first case, one vector follows from the other. In the second case, u^T W v is within ``TOLERANCE`` of the
    lower bounds on ||W|| that a few products give.

    Args:
        u: (..., m), or several columns, of which only the first is checked. The same holds for ``v`` (..., n).

    Returns:
        One boolean, 0-d.
    """
    if u.dim() == matrix.dim():
        u, v = u[..., 0], v[..., 0]
        other, implied = v, (matrix.mT @ u.unsqueeze(-1)).squeeze(-1)
    else:
        other, implied = u, (matrix @ v.unsqueeze(-1)).squeeze(-1)
    follows = ((normalize(implied) - other).norm(dim=-1) < SAME).all() & (other.shape[-1] > 1)
    sigma = along(matrix, u, v)
    probe = along(matrix, *power_iteration(matrix, _start(matrix.shape[:-1], matrix), PROBES))
    bound = torch.maximum((matrix.mT @ u.unsqueeze(-1)).squeeze(-1).norm(dim=-1), probe)
    off = torch.maximum((u.norm(dim=-1) - 1).abs(), (v.norm(dim=-1) - 1).abs())
    near = (sigma >= (1 - TOLERANCE) * bound).all() & (off < TOLERANCE).all()
    return follows | near | (matrix == 0).all()


@torch.no_grad()
def top_vectors(matrix: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the top singular vectors of ``matrix`` (..., m, n): u (..., m) and v (..., n), or ``count`` of each."""
    width = min((count or 1) + EXTRA, *matrix.shape[-2:])
    start = torch.linalg.qr(_start((*matrix.shape[:-1], width), matrix))[0]
    u, v = block_power_iteration(matrix, start, ROUNDS)
    return (u[..., 0], v[..., 0]) if count is None else (u[..., :count], v[..., :count])


@torch.library.custom_op("orthogan::fitting_vectors", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def fitting_vectors(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``u`` and ``v`` if they belong to ``matrix``, and otherwise its top singular vectors. No gradient.

    It is an operator, so that ``torch.compile`` does not look inside: it branches on the values.
    """
    matrix = matrix / magnitude(matrix, *range(-matrix.dim(), 0))
    if not bool(belong(matrix, u, v)) and bool(torch.isfinite(matrix).all()):
        u, v = top_vectors(matrix, u.shape[-1] if u.dim() == matrix.dim() else None)
    return u.clone(memory_format=torch.contiguous_format), v.clone(memory_format=torch.contiguous_format)


@fitting_vectors.register_fake
def _(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), v.new_empty(v.shape)


@torch.no_grad()
def fitting(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``fitting_vectors``, also under ``torch.compile`` and ``torch.func``.

    An exported or traced program, which must not have operators of this package, and a meta tensor keep u and v.
    """
    if can_look(matrix) or (torch.compiler.is_compiling() and not _exporting()):
        return fitting_vectors(matrix, u, v)
    if torch.compiler.is_compiling() or not transformed(matrix):
        return u, v
    matrix = matrix / magnitude(matrix, *range(-matrix.dim(), 0))
    belongs = belong(matrix, u, v)  # the same check without a branch
    found = top_vectors(matrix, u.shape[-1] if u.dim() == matrix.dim() else None)
    return torch.where(belongs, u, found[0]), torch.where(belongs, v, found[1])


def _exporting() -> bool:
    """Return whether ``torch.export`` runs; torch 2.9 compiles ``torch.compiler.is_exporting()`` as True."""
    return torch.compiler._is_exporting_flag


def along(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return u^T W v (...) for W (..., m, n)."""
    return (u * (matrix @ v.unsqueeze(-1)).squeeze(-1)).sum(-1)


def _start(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return numbers without a pattern that a weight could share. ``torch.func`` does not allow random draws here."""
    steps = torch.arange(math.prod(shape), dtype=torch.float64, device="cpu")
    return torch.cos(steps.square() * 0.7390851332 + steps).reshape(tuple(shape)).to(like.device, like.dtype)
