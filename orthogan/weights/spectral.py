"""Spectral normalisation (Miyato et al. 2018) as a parametrization: W -> W / sigma(W)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.power import EPS, power_iterations
from orthogan.linalg.precision import exact
from orthogan.linalg.stable_rank import stable_rank_slopes
from orthogan.weights.constraint import Constraint, register, without_autocast

Effective = Callable[[Tensor, Tensor, Tensor], Tensor]
WARM_UP = 15  # power iterations at registration, so that the first forward is already normalised


class Kept(NamedTuple):
    """What holds while ``weight`` is of this version: its singular vectors (of ``rows``) and numbers for ``closed``."""

    weight: Tensor
    version: int
    u: Tensor
    v: Tensor
    numbers: Tensor


class SpectralNorm(Constraint):
    """W / sigma with sigma = u^T W v, differentiable in W; u and v are constants that follow W by power iteration.

    A training forward advances them by ``n_power_iterations``, an eval forward and one within
    ``orthogan.weights.frozen`` by none; ``orthogan.weights.Advance`` does it for all layers at once, once a step.
    All of it is float32 (float64 weights stay float64), also inside autocast.

    ``effective`` says what the constraint is. In eager mode, where every kernel is launched by itself, ``closed`` does
    the same with its gradient worked out on paper, in far fewer kernels. ``share`` is None for a kind without it, 0 for
    spectral normalisation, else as in ``orthogan.linalg.stable_rank.stable_rank_slopes``.
    """

    u: Tensor
    v: Tensor
    share: float | None = 0.0

    def __init__(self, module: nn.Module, weight: Tensor, *, n_power_iterations: int = 1) -> None:
        super().__init__(module, weight)
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations is {n_power_iterations}: at least 1 is needed")
        self.n_power_iterations = n_power_iterations
        matrix = exact(self.view.to(weight.detach()))
        u, v = self.iterate(matrix, self.start(matrix), WARM_UP)
        self.register_buffer("u", u)
        self.register_buffer("v", v)

    def start(self, matrix: Tensor) -> Tensor:
        """A random u."""
        return normalize(torch.randn(self.view.rows, dtype=matrix.dtype, device=matrix.device))

    def iterate(self, matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """u and v nearer to the top singular vectors."""
        return power_iteration(matrix, u, iterations)

    @torch.no_grad()
    def advance(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Iterate u and v towards the top singular vectors of ``weight``; returns them, apart from the buffers."""
        with without_autocast(weight.device):
            u, v = self.iterate(exact(self.rows(weight)), exact(self.u), self.n_power_iterations)
        self.u.copy_(u)
        self.v.copy_(self.reordered(v, weight, back=True))
        return u, v

    @staticmethod
    @torch.no_grad()
    def together(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """``advance`` for all, those of one number format and device in a few kernels."""
        groups: dict[Any, list[tuple[SpectralNorm, Tensor, Tensor]]] = {}
        for constraint, weight in zip(constraints, weights, strict=True):
            matrix = exact(constraint.rows(weight))
            key = (matrix.device, matrix.dtype, constraint.u.dtype, constraint.n_power_iterations)
            groups.setdefault(key, []).append((constraint, weight, matrix))
        for (device, *_, iterations), group in groups.items():
            group.sort(key=lambda one: one[2].shape)
            with without_autocast(device):
                _together(group, iterations, keep)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, in at least float32."""
        compiling = torch.compiler.is_compiling()  # then kernels are fused, and the compiler wants the plain formula
        kept: Kept | None = None if compiling else self.kept
        if kept is not None and not (kept.weight is weight and kept.version == weight._version):
            kept = None
        fresh = self.advance(weight) if self.training and not self.held else None
        with without_autocast(weight.device):
            matrix = exact(self.rows(weight))
            if kept is not None:
                u, v = kept.u, kept.v
            elif fresh is not None:
                u, v = fresh
            else:  # copies: a later forward may advance the buffers before this one's backward
                u, v = exact(self.u).clone(), self.reordered(exact(self.v).clone(), weight)
            # forward-mode derivatives (a tangent) take the plain formula too
            if compiling or self.share is None or forward_ad.unpack_dual(matrix).tangent is not None:
                found = self.effective(matrix, u, v)
            else:
                found = self.closed(matrix, u, v, None if kept is None else kept.numbers)
            return self.from_rows(found, weight)

    def rows(self, weight: Tensor) -> Tensor:
        """The matrix of ``weight``, with the columns in the order in which they lie in memory: it is no copy then.

        Singular values and u are the same in any order of the columns, and v follows it.
        """
        if self.channels_last(weight):
            return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        return self.view.to(weight)

    def from_rows(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """The weight of a ``matrix`` with columns as in ``rows``, in the same layout."""
        if self.channels_last(weight):
            return matrix.reshape(weight.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        return self.view.back(matrix)

    def reordered(self, v: Tensor, weight: Tensor, back: bool = False) -> Tensor:
        """v (in * kh * kw) as the columns of ``rows`` are ordered, or ``back`` to the order of the buffer."""
        if not self.channels_last(weight):
            return v
        inputs, *kernel = weight.shape[1:]
        if back:
            return v.reshape(*kernel, inputs).permute(2, 0, 1).reshape(-1)
        return v.reshape(inputs, *kernel).permute(1, 2, 0).reshape(-1)

    def channels_last(self, weight: Tensor) -> bool:
        """Whether ``weight`` is a kernel that lies in memory with its input channels last."""
        if weight.dim() != 4 or self.view.transposed or self.u.dim() > 1:
            return False
        return not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The constrained matrix."""
        return matrix / torch.dot(u, matrix @ v).clamp_min(EPS)

    def closed(self, matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor | None) -> Tensor:
        """``effective``, from 1 / sigma where that is known as ``numbers``."""
        if numbers is None:
            with torch.no_grad():
                numbers = torch.dot(u, matrix @ v).clamp_min(EPS).reciprocal()
        return _Divided.apply(matrix, u, v, numbers, self.effective)  # pyright: ignore

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight assigns the unconstrained one."""
        return weight


class _Divided(torch.autograd.Function):
    """W / sigma, with the gradient (G - <G, W> / sigma u v^T) / sigma."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, u: Tensor, v: Tensor, inverse: Tensor, effective: Effective) -> Tensor:
        return matrix * inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.effective = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (matrix, u, v, inverse) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            return second_order(ctx.effective, matrix, u, v, gradient), None, None, None, None
        with without_autocast(matrix.device):
            along = torch.dot(gradient.reshape(-1), matrix.reshape(-1)) * inverse
            return torch.addr(gradient, u, v * along, alpha=-1).mul_(inverse), None, None, None, None


def second_order(effective: Effective, matrix: Tensor, u: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by autograd, for one who wants to differentiate it again."""
    with without_autocast(matrix.device):
        return torch.autograd.grad(effective(matrix, u, v), matrix, gradient, create_graph=True)[0]


def _together(group: Sequence[tuple[SpectralNorm, Tensor, Tensor]], iterations: int, keep: bool) -> None:
    """A round for matrices of one number format on one device, in order of their shapes."""
    constraints, weights, matrices = zip(*group, strict=True)
    starts = [exact(constraint.u) for constraint in constraints]
    many, wide, sigma = power_iterations(matrices, starts, iterations, stacked=matrices[0].is_cuda)
    u = [row[: len(m)] for row, m in zip(many.unbind(), matrices, strict=True)]
    v = [row[: m.shape[1]] for row, m in zip(wide.unbind(), matrices, strict=True)]
    ordered = [c.reordered(one, weight, back=True) for c, one, weight in zip(constraints, v, weights, strict=True)]
    torch._foreach_copy_([*(c.u for c in constraints), *(c.v for c in constraints)], [*u, *ordered])  # pyright: ignore
    if not keep:
        return
    # a kind without a closed form, which may be among them, takes the vectors alone
    shares = tuple(constraint.share or 0.0 for constraint in constraints)
    if any(shares):
        squares = _squares(matrices)
        slopes = stable_rank_slopes(sigma, squares, _on_device(shares, sigma.dtype, sigma.device)).unbind()
        numbers = [found if share else found[0, 0] for found, share in zip(slopes, shares, strict=True)]
    else:
        numbers = sigma.clamp_min(EPS).reciprocal().unbind()
    for constraint, weight, *rest in zip(constraints, weights, u, v, numbers, strict=True):
        constraint.kept = Kept(weight, weight._version, *rest)


def _squares(matrices: Sequence[Tensor]) -> Tensor:
    """||W||_F^2 of each."""
    if matrices[0].is_cuda:
        return torch.stack(torch._foreach_norm(matrices)).square()  # pyright: ignore
    return torch.stack([torch.dot(m.reshape(-1), m.reshape(-1)) for m in matrices])  # faster than norms there


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)  # once, and not in every step: the copy makes a CPU wait


def spectral_norm(module: nn.Module, name: str = "weight", n_power_iterations: int = 1) -> nn.Module:
    """Keep the spectral norm of ``module.name`` at 1; returns ``module``.

    Convolution kernels count as matrices (out, in*kh*kw), transposed ones by their output channels. The bound is
    that of the reshaped matrix, as in the paper, not of the convolution as an operator.

    Raises:
        ValueError: there is no such parameter, or it is a vector.
    """
    return register(module, name, lambda weight: SpectralNorm(module, weight, n_power_iterations=n_power_iterations))
