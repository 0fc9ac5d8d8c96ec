"""Stable rank normalization (Sanyal, Torr & Dokania 2020) as a parametrization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, SupportsFloat

import torch
from pydantic import Field
from torch import Tensor, nn

from orthogan.arguments import checked, integer
from orthogan.config.base import Share
from orthogan.linalg import block_power_iteration, normalize, stable_rank_scale
from orthogan.linalg.precision import at_least_float32, second_order, without_autocast
from orthogan.linalg.stable_rank import divisor, preserved, raise_top, shrink, stable_rank_slopes
from orthogan.weights.constraint import register
from orthogan.weights.network import CONSTRAINTS
from orthogan.weights.spectral import Effective, SpectralConfig, SpectralNorm, inner, of_the_top_group


class StableRankNorm(SpectralNorm):
    """Spectral normalization with a stable rank of at most r: W -> g2 W/sigma + (g1 - g2) u v^T.

    k = 1 is algorithm 2 of the paper in a form without a branch: g1 = 1 and g2 is
    ``orthogan.linalg.stable_rank_scale``, which is 1 (spectral normalization alone) if the rank is low enough. k = 0
    preserves no singular value and stays closer to W/sigma. The largest singular value becomes
    g1 = (1 + (r - 1) / g2') / r >= 1 (theorem 1), so the layer is no longer 1-Lipschitz.

    The target is r = max(1, c * min(rows, columns)). The paper's authors' code fails if c * min < 1. At r = 1 the
    result is u v^T. In the published form u and v are constant, so its gradient is zero. Here, a single row or column
    is normalized as in ``SpectralNorm`` (the same value), and any other matrix gets one last, differentiable power
    iteration.

    Source: Sanyal, Torr & Dokania 2020, algorithm 2, arXiv:1906.04659.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.linalg import stable_rank
        >>> from orthogan.weights import StableRankNorm, stable_rank_norm
        >>> layer = stable_rank_norm(nn.Linear(8, 8), c=0.25, n_power_iterations=20)
        >>> isinstance(layer.parametrizations.weight[0], StableRankNorm)
        True
        >>> _ = layer(torch.ones(1, 8))
        >>> bool(stable_rank(layer.weight) < 2.1)  # c times the smaller side is 2
        True
    """

    def __init__(self, module: nn.Module, weight: Tensor, *, c: float, k: int = 1, n_power_iterations: int = 1) -> None:
        if not 0 < c <= 1:
            raise ValueError(f"c is {c}: the target stable rank must be a fraction of min(rows, columns), in (0, 1]")
        self.k = k
        super().__init__(module, weight, n_power_iterations=n_power_iterations)
        self.c = c
        self._aim()

    def _aim(self) -> None:
        self.target = max(1.0, self.c * self.smaller_side)
        if self.target > 1:
            self.share = 1 / (self.target - 1) if self.k == 1 else None
        else:
            self.share = 0.0 if self.vectors is None and self.smaller_side == 1 else None

    def ungroup(self, u: Tensor, v: Tensor | None) -> None:
        """Treat the rows of all groups as one matrix without zeros, as the checkpoint does."""
        super().ungroup(u, v)
        self._aim()

    def scale(self, matrix: Tensor) -> Tensor:
        """Return the factor of the tail (for k = 1) for ``matrix`` with the current singular vectors."""
        u, v = at_least_float32(self.u), at_least_float32(self.v)
        return self.tail(
            matrix, *(of_the_top_group(matrix, u, v) if self.groups > 1 and self.vectors is None else (u, v))
        )

    def tail(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the factor of the tail for ``matrix`` with the given singular vectors."""
        return stable_rank_scale(matrix.reshape(self.view.rows, -1), inner(matrix, u, v), self.target)

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the constrained matrix."""
        if self.target > 1:
            return self.shrunk(matrix, u, v)
        if self.vectors is not None:
            u, v = u[..., 0], v[..., 0]
            if matrix.dim() > 2:
                u, v = of_the_top_group(matrix, u, v)
        if self.smaller_side == 1:
            return super().effective(matrix, u, v)
        if matrix.dim() == 2:
            v = normalize(matrix.mT @ u)
            return torch.outer(normalize(matrix @ v), v)
        v = normalize((matrix.mT @ u.unsqueeze(-1)).squeeze(-1))
        return normalize((matrix @ v.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1) * v.unsqueeze(-2)

    def closed(self, matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor | None) -> Tensor:
        """Return ``effective``, using ``numbers`` (from ``stable_rank_slopes``) if they are known."""
        if not self.share:
            return super().closed(matrix, u, v, numbers)
        if numbers is None:
            with torch.no_grad():
                entries = matrix.reshape(-1)
                numbers = stable_rank_slopes(torch.dot(u, matrix @ v), torch.dot(entries, entries), self.share)
        return _Shrunk.apply(matrix, u, v, numbers, self.plain)  # pyright: ignore

    def shrunk(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the constrained matrix for a target above 1."""
        sigma = inner(matrix, u, v)
        tail = stable_rank_scale(matrix.reshape(self.view.rows, -1), sigma, self.target)
        head: Tensor | float = 1.0
        if self.k == 0:
            head, tail = raise_top(tail, self.target)
        rest = matrix * (tail / divisor(sigma))
        if matrix.dim() == 2:
            return torch.addr(rest, u, v * (head - tail))
        return rest + u.unsqueeze(-1) * (v * (head - tail)).unsqueeze(-2)

    def facts(self, weight: Tensor) -> dict[str, float]:
        """Return the target, the factor of the tail, and whether that factor is below 1."""
        # computed like the forward pass, from the current u and v: their sigma is at most the true one, so the
        # constraint is active slightly before the exact stable rank reaches the target
        # a single row has no tail to scale
        scale = float(self.tail(*self.present(weight))) if self.smaller_side > 1 else 1.0
        return {"target": self.target, "active": scale < 1.0, "scale": scale}


class SpectrumPreservingStableRankNorm(StableRankNorm):
    """Stable rank normalization that preserves the ratios of the first k > 1 singular values (algorithm 1, with SN).

    u (rows, k) and v (columns, k) follow the top k singular vectors by block power iteration. With
    s_i = u_i^T W v_i, ||W - sum s_i u_i v_i^T||_F^2 = ||W||_F^2 - sum s_i^2 for any orthonormal u and v. The effective
    weight therefore has exactly the wanted Frobenius norm even before the vectors have converged. Of the k values, only
    those that keep the target feasible are preserved.
    """

    def start(self, matrix: Tensor) -> Tensor:
        """Return k random orthonormal vectors for each group."""
        self.vectors = min(self.k, *matrix.shape[-2:])
        self.k = min(self.k, self.smaller_side)
        shape = (*matrix.shape[:-1], self.vectors)
        return torch.linalg.qr(torch.randn(shape, dtype=matrix.dtype, device=matrix.device))[0]

    def iterate(self, matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """Run block power iteration."""
        return block_power_iteration(matrix, u, iterations)

    @staticmethod
    @torch.no_grad()
    def advance_batch(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """Call ``advance`` for all constraints; those of the same shape form one batch."""
        groups: dict[Any, list[tuple[SpectrumPreservingStableRankNorm, Tensor]]] = {}
        for constraint, weight in zip(constraints, weights, strict=True):
            matrix = at_least_float32(constraint.matrix(weight))
            key = (matrix.device, matrix.shape, matrix.dtype, constraint.k, constraint.n_power_iterations)
            groups.setdefault(key, []).append((constraint, matrix))
        for (device, *_, iterations), group in groups.items():
            alike, matrices = zip(*group, strict=True)
            with without_autocast(device):
                starts = torch.stack([at_least_float32(constraint.u) for constraint in alike])
                u, v = block_power_iteration(torch.stack(matrices), starts, iterations)
            buffers = [*(constraint.u for constraint in alike), *(constraint.v for constraint in alike)]
            torch._foreach_copy_(buffers, [*u.unbind(), *v.unbind()])  # pyright: ignore

    def _factors(self, matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sigma (1,), the preserved part of each value over sigma (same shape), and the tail's factor (1,)."""
        values = (u * (matrix @ v)).sum(-2)
        if values.dim() == 1:
            order, ordered = None, values
        else:  # the k largest of all groups
            ordered, order = values.flatten().sort(descending=True)
        sigma = divisor(ordered[:1])
        relative = ordered / sigma
        head, rest = preserved(relative, (matrix.square().sum() / sigma.square()), self.target, self.k)
        held = torch.where(relative.square().cumsum(0) <= self.target * (1 + 1e-9), relative, 0.0)
        if order is not None:
            held = torch.where(torch.arange(len(held), device=held.device) < self.k, held, 0.0)
            held = torch.zeros_like(held).scatter(0, order, held).unflatten(0, values.shape)
        return sigma, held, shrink(self.target - head, rest)

    def tail(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the factor of the tail for ``matrix`` with the given singular vectors."""
        return self._factors(matrix, u, v)[2].squeeze()

    def shrunk(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the constrained matrix for a target above 1."""
        sigma, held, tail = self._factors(matrix, u, v)
        return matrix * (tail / sigma) + (u * (held * (1 - tail)).unsqueeze(-2)) @ v.mT


class _Shrunk(torch.autograd.Function):
    """a W + b u v^T and its gradient, from the numbers of ``stable_rank_slopes``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor, plain: Effective) -> Tensor:
        return torch.addr(matrix * numbers[0, 0], u, v * numbers[0, 1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.plain = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (matrix, u, v, numbers) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            return second_order(ctx.plain, gradient, matrix, u, v), None, None, None, None
        with without_autocast(matrix.device):
            along = torch.stack([torch.dot(gradient.reshape(-1), matrix.reshape(-1)), torch.dot(u, gradient @ v)])
            head, top = (numbers[1:3] @ along).unbind()
            return torch.addr(gradient * numbers[3, 0], u, v * top).addcmul_(matrix, head), None, None, None, None


@checked
def stable_rank_norm(
    module: nn.Module, name: str = "weight", c: float = 0.7, k: int = 1, n_power_iterations: int = 1
) -> nn.Module:
    """Keep the spectral norm of ``module.name`` at 1 and its stable rank at or below c * min(rows, columns).

    Args:
        c: in (0, 1]. c = 1 is spectral normalization.
        k: number of largest singular values whose ratios are preserved. The paper's networks use 1. With 0, the largest
            value can rise above 1, which keeps the weight closer to the unconstrained one. k > 1 is reduced if the
            target leaves no room for k values.

    Raises:
        ValueError: a value is out of range, or there is no such weight.

    Source: Sanyal, Torr & Dokania 2020, algorithm 2, arXiv:1906.04659.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.linalg import stable_rank
        >>> from orthogan.weights import stable_rank_norm
        >>> layer = stable_rank_norm(nn.Conv2d(3, 8, 3), c=0.5, n_power_iterations=20)
        >>> _ = layer(torch.zeros(1, 3, 8, 8))
        >>> bool(stable_rank(layer.weight.flatten(1)) < 4.1)  # half of the 8 rows
        True
    """
    if not isinstance(c, SupportsFloat):
        raise TypeError(f"c is {c!r}: expected a number in (0, 1]")
    k = integer("k", k)
    if k < 0:
        raise ValueError(f"k is {k}: the number of preserved singular values must be 0 or more")
    kind = SpectrumPreservingStableRankNorm if k > 1 else StableRankNorm
    return register(module, name, lambda weight: kind(module, weight, c=c, k=k, n_power_iterations=n_power_iterations))


@CONSTRAINTS.register("stable_rank", "srn", "stable_rank_norm")
class StableRankConfig(SpectralConfig):
    """Stable rank normalization: a spectral norm of 1, and a bound on the stable rank."""

    kind: str = "stable_rank"
    c: Share = Field(default=0.7, description="target stable rank as a fraction of min(rows, columns) [0-1]")
    k: Annotated[int, Field(ge=0, le=1 << 16)] = Field(
        default=1, description="number of leading singular values to preserve"
    )
    put_on: ClassVar = staticmethod(stable_rank_norm)
