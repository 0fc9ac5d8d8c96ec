"""Whether the singular vectors that follow a weight belong to it, and finding them where they do not.

A weight that was assigned, loaded without its vectors or written in place is another one than the vectors know. Then
u^T W v says nothing about its spectral norm, and the power iterations of a forward would need many steps to catch up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore
from torch._subclasses.fake_tensor import FakeTensor

from orthogan.linalg import block_power_iteration, normalize, power_iteration

TOLERANCE = 1e-2  # by how much the estimate of a spectral norm may be shown to be low
SAME = 1e-4  # distance of unit vectors that differ by rounding
PROBES = 3  # power iterations from a fixed random start that look for a larger value than the vectors have
EXTRA, ROUNDS = 7, 50  # of block power iteration: vectors beside the wanted ones, and iterations


def can_look(tensor: Tensor) -> bool:
    """Whether code may branch on the values of ``tensor``: not while something is traced, nor on a meta tensor."""
    traced = (
        torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or isinstance(tensor, FakeTensor)
    )
    return not (traced or tensor.is_meta or transformed(tensor))


def transformed(tensor: Tensor) -> bool:
    """Whether ``tensor`` stands for others within ``torch.func``."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


@torch.no_grad()
def belong(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Whether u and v were iterated on this very ``matrix`` (..., m, n), or are near enough to its singular vectors.

    The first shows in that the one follows from the other. The second means that u^T W v is within ``TOLERANCE`` of
    all that a few products show ||W|| to be at least.

    Args:
        u: (..., m), or with several columns, of which the first is looked at; so is ``v`` (..., n).

    Returns:
        One answer, 0-d.
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
    """Top singular vectors of ``matrix`` (..., m, n): u (..., m) and v (..., n), or with ``count`` columns each."""
    width = min((count or 1) + EXTRA, *matrix.shape[-2:])
    start = torch.linalg.qr(_start((*matrix.shape[:-1], width), matrix))[0]
    u, v = block_power_iteration(matrix, start, ROUNDS)
    return (u[..., 0], v[..., 0]) if count is None else (u[..., :count], v[..., :count])


def along(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^T W v (...) for W (..., m, n)."""
    return (u * (matrix @ v.unsqueeze(-1)).squeeze(-1)).sum(-1)


def _start(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers without a pattern that a weight would share; no draw, which ``torch.func`` refuses."""
    steps = torch.arange(math.prod(shape), dtype=torch.float64, device="cpu")
    return torch.cos(steps.square() * 0.7390851332 + steps).reshape(tuple(shape)).to(like.device, like.dtype)
