"""Spectral normalization (Miyato et al. 2018) as a parametrization: W -> W / sigma(W)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.config.base import Iterations
from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.power import EPS, power_iterations
from orthogan.linalg.precision import at_least_float32, magnitude
from orthogan.linalg.stable_rank import damped, divisor, stable_rank_slopes
from orthogan.weights.belonging import along, belong, can_look, top_vectors, transformed
from orthogan.weights.constraint import Constraint, register, without_autocast
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig

Effective = Callable[[Tensor, Tensor, Tensor], Tensor]
WARM_UP = 15  # power iterations at registration, so that the first forward is already normalized
USUAL = 2.0**14  # a parameter whose largest entry is outside [1 / this, this] is rescaled when it is assigned
WIDEST = 2.0**36  # outside [1 / this, this] squares of the entries may leave the range of float32


class Kept(NamedTuple):
    """What holds while ``weight`` is of this version: its singular vectors (of ``rows``) and numbers for ``closed``."""

    weight: Tensor
    version: int
    u: Tensor
    v: Tensor
    numbers: Tensor


class SpectralNorm(Constraint):
    """W / sigma with sigma = u^T W v, differentiable in W; u and v are constants that follow W by power iteration.

    A training forward advances them by ``n_power_iterations``; an eval forward, and one within
    ``orthogan.weights.hold_power_iteration``, does not. ``orthogan.weights.PowerIterationScheduler`` advances all
    layers at once, once per step.
    All of it is float32 (float64 weights stay float64), also inside autocast. A kernel with groups counts as the
    block-diagonal matrix that it stands for: each group has its u and v, and sigma is the largest of the groups.

    Where u and v belong to another weight, an eval forward takes what it finds for this one instead, and leaves them.
    A weight of zeros stays what it is. Its gradient, and that of one with sigma below ``SMALL`` of
    ``orthogan.linalg.stable_rank``, is scaled down from 1 / sigma, which would fill an optimizer's memory for good.

    ``effective`` says what the constraint is. In eager mode, where every kernel is launched by itself, ``closed`` does
    the same with its gradient computed on paper, in far fewer kernels. ``share`` is None for a kind without it, 0 for
    spectral normalization, else as in ``orthogan.linalg.stable_rank.stable_rank_slopes``.

    Source: Miyato et al. 2018, algorithm 1, arXiv:1802.05957.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import SpectralNorm, spectral_norm
        >>> layer = spectral_norm(nn.Linear(4, 4), n_power_iterations=20)
        >>> isinstance(layer.parametrizations.weight[0], SpectralNorm)
        True
        >>> _ = layer(torch.ones(1, 4))  # a forward in training mode advances the power iteration
        >>> bool(torch.linalg.matrix_norm(layer.weight, 2) < 1.05)
        True
    """

    u: Tensor
    v: Tensor
    share: float | None = 0.0
    vectors: int | None = None  # columns of u and v in a kind that follows several; None for plain vectors

    def __init__(self, module: nn.Module, weight: Tensor, *, n_power_iterations: int = 1) -> None:
        super().__init__(module, weight)
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations is {n_power_iterations}: must be at least 1")
        self.n_power_iterations = n_power_iterations
        matrix = at_least_float32(self.matrix(weight.detach()))
        u, v = self.iterate(matrix, self.start(matrix), WARM_UP)
        self.register_buffer("u", u)
        self.register_buffer("v", v)
        self._made_for: Tensor | None = weight  # which right_inverse meets first

    @property
    def smaller_side(self) -> int:
        """Of the (block-diagonal) matrix: the number of its singular values."""
        return min(self.view.rows, self.groups * self.view.columns)

    def start(self, matrix: Tensor) -> Tensor:
        """A random u."""
        return normalize(torch.randn(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device))

    def iterate(self, matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """u and v nearer to the top singular vectors."""
        return power_iteration(matrix, u, iterations)

    @torch.no_grad()
    def advance(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Iterate u and v toward the top singular vectors of ``weight``; returns them, apart from the buffers."""
        with without_autocast(weight.device):
            u, v = self.iterate(at_least_float32(self.rows(weight)), at_least_float32(self.u), self.n_power_iterations)
        self.u.copy_(u)
        self.v.copy_(self.reordered(v, weight, back=True))
        return u, v

    @staticmethod
    @torch.no_grad()
    def advance_batch(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """``advance`` for all, those of one number format and device in a few kernels."""
        groups: dict[Any, list[tuple[SpectralNorm, Tensor, Tensor]]] = {}
        for constraint, weight in zip(constraints, weights, strict=True):
            if constraint.groups > 1:
                constraint.advance(weight)
                continue
            matrix = at_least_float32(constraint.rows(weight))
            key = (matrix.device, matrix.dtype, constraint.u.dtype, constraint.n_power_iterations)
            groups.setdefault(key, []).append((constraint, weight, matrix))
        for (device, *_, iterations), group in groups.items():
            group.sort(key=lambda one: one[2].shape)
            with without_autocast(device):
                _together(group, iterations, keep)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, computed in at least float32, in the dtype of ``weight``."""
        compiling = torch.compiler.is_compiling()  # then kernels are fused, and the compiler wants the plain formula
        kept: Kept | None = None if compiling else self.kept
        if kept is not None and not (kept.weight is weight and kept.version == weight._version):
            kept = None
        fresh = self.advance(weight) if self.training and not self.held else None
        with without_autocast(weight.device):
            numbers = None
            if kept is not None:
                matrix, u, v, numbers = at_least_float32(self.rows(weight)), kept.u, kept.v, kept.numbers
            else:
                matrix, u, v = self.present(weight, fresh)
            # forward-mode derivatives (a tangent) take the plain formula too
            if compiling:
                found = self.effective(matrix, u, v)
            elif self.share is None or self.groups > 1 or forward_ad.unpack_dual(matrix).tangent is not None:
                found = self.plain(matrix, u, v)
            else:
                found = self.closed(matrix, u, v, numbers)
            return self.given(self.from_rows(found, weight), weight)

    def present(self, weight: Tensor, fresh: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix of ``weight`` and the singular vectors that count now: ``fresh`` ones, or the buffers'."""
        matrix = at_least_float32(self.rows(weight))
        # copies: a later forward may advance the buffers before this one's backward
        u, v = fresh or (at_least_float32(self.u).clone(), self.reordered(at_least_float32(self.v).clone(), weight))
        if can_look(weight) and (not self.training or (not weight.is_cuda and not _usual(matrix, u, v))):
            matrix, u, v = self._settled(weight, matrix, u, v)
        elif not self.training and not torch.compiler.is_compiling() and transformed(weight):
            belongs = belong(matrix.detach(), u, v)  # the same without a branch
            found = top_vectors(matrix.detach(), self.vectors)
            u, v = torch.where(belongs, u, found[0]), torch.where(belongs, v, found[1])
        if self.groups > 1 and self.vectors is None:
            u, v = of_the_top_group(matrix, u, v)
        return matrix, u, v

    def _settled(self, weight: Tensor, matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``matrix`` at a usual scale, and singular vectors of it: ``u`` and ``v`` where they belong to it."""
        key = None
        if not weight.is_inference():
            # the sum is for writes that the version does not count, where to look at it costs no wait for a device
            entries = None if weight.is_cuda else float(weight.detach().sum())
            key = (weight.data_ptr(), weight._version, weight.stride(), self.u.data_ptr(), self.u._version, entries)
        if key is None or self.looked is None or self.looked[0] != key:
            values, size = matrix.detach(), None
            found_size = magnitude(values, *range(-matrix.dim(), 0))
            if not 1 / WIDEST <= float(found_size) <= WIDEST:
                size, values = found_size, values / found_size
            belongs = bool(belong(values, u, v)) or not bool(torch.isfinite(values).all())
            self.looked = (key, size, None if belongs else top_vectors(values, self.vectors))
        _, size, found = self.looked
        if size is not None:
            # of a tiny matrix the gradient is that at the usual scale: see `damped`
            tiny = float(size) < 1
            matrix = matrix.detach() / size + (matrix - matrix.detach()) if tiny else matrix / size
        u, v = found or (u, v)
        return matrix, u, v

    def rows(self, weight: Tensor) -> Tensor:
        """The matrix of ``weight``, with the columns in the order in which they lie in memory: it is no copy then.

        Singular values and u are the same in any order of the columns, and v follows it.
        """
        if self.channels_last(weight):
            return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        return self.matrix(weight)

    def from_rows(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """The weight of a ``matrix`` with columns as in ``rows``, in the same layout."""
        if self.channels_last(weight):
            return matrix.reshape(weight.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        return self.weight_of(matrix)

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
        if weight.dim() != 4 or self.view.transposed or self.u.dim() > 1:  # several vectors, or groups
            return False
        return not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The constrained matrix."""
        return matrix / divisor(inner(matrix, u, v))

    def plain(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``effective``, with the gradient of a matrix that is nearly zero scaled down as ``damped`` says."""
        with torch.no_grad():
            sigma = inner(matrix, u, v) if self.vectors is None else along(matrix, u[..., 0], v[..., 0]).amax()
            inverse = divisor(sigma).reciprocal()
            factor = damped(inverse) / inverse
        return self.effective(
            torch.where(factor == 1, matrix, matrix.detach() + factor * (matrix - matrix.detach())), u, v
        )

    def closed(self, matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor | None) -> Tensor:
        """``effective``, from 1 / sigma and the factor of its gradient where they are known as ``numbers``."""
        if numbers is None:
            with torch.no_grad():
                numbers = _inverses(torch.dot(u, matrix @ v))
        return _Divided.apply(matrix, u, v, numbers, self.plain)  # pyright: ignore

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight assigns the unconstrained one, at a usual scale, and finds its singular vectors.

        The scale does not change the effective weight, but a step of an optimizer would hardly change a parameter
        that is very large, and jump with one that is very small.
        """
        weight = self.assignable(weight)
        registered, self._made_for = self._made_for is weight, None
        if not can_look(weight):
            return weight
        matrix = at_least_float32(self.matrix(weight))
        size = magnitude(matrix, *range(-matrix.dim(), 0))
        usual = 1 / USUAL <= float(size) <= USUAL
        if not (registered and usual):
            self.fit(matrix / size)
        return weight if usual else weight / size.to(weight.dtype).reshape([1] * weight.dim())

    def fit(self, matrix: Tensor) -> None:
        """Set u and v to the top singular vectors of ``matrix``."""
        if bool(torch.isfinite(matrix).all()) and bool((matrix != 0).any()):
            for buffer, found in zip((self.u, self.v), top_vectors(matrix, self.vectors), strict=True):
                buffer.copy_(found)

    @torch.no_grad()
    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Follow a weight that comes without singular vectors; take groups as the checkpoint has them."""
        weight, u = state.get(f"{prefix}original"), state.get(f"{own}u")
        if isinstance(u, Tensor) and self.groups > 1 and u.dim() == (1 if self.vectors is None else 2):
            self.ungroup(u, state.get(f"{own}v"))
        if isinstance(weight, Tensor) and u is None and weight.shape == parameters.original.shape and can_look(weight):
            matrix = at_least_float32(self.matrix(weight.to(self.u.device)))
            self.fit(matrix / magnitude(matrix, *range(-matrix.dim(), 0)))

    def ungroup(self, u: Tensor, v: Tensor | None) -> None:
        """Go on as a checkpoint does that took the rows of all groups for one matrix without zeros."""
        self.groups = 1
        self.u = self.u.new_zeros(u.shape)
        self.v = self.v.new_zeros(v.shape if v is not None else (self.view.columns, *u.shape[1:]))


def _usual(matrix: Tensor, u: Tensor, v: Tensor) -> bool:
    """Whether u^T W v is neither zero nor of a size whose powers leave the range of float32."""
    with torch.no_grad():
        sigma = along(matrix, u, v) if u.dim() < matrix.dim() else along(matrix, u[..., 0], v[..., 0])
        return EPS < float(sigma.amax()) < 1 / EPS


def inner(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^T W v, 0-d, of a matrix or of the blocks of a block-diagonal one."""
    return torch.dot(u, matrix @ v) if matrix.dim() == 2 else along(matrix, u, v).sum()


def of_the_top_group(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """u (groups, m) and v (groups, n), zero but for the group with the largest u^T W v."""
    with torch.no_grad():
        sigmas = along(matrix, u, v)
        top = torch.nn.functional.one_hot(sigmas.argmax(), len(sigmas)).to(u.dtype).unsqueeze(-1)
        return u * top, v * top


def _inverses(sigma: Tensor) -> Tensor:
    """(..., 2): 1 / sigma, and the factor of the gradient."""
    inverse = divisor(sigma).reciprocal()
    return torch.stack([inverse, damped(inverse)], -1)


class _Divided(torch.autograd.Function):
    """W / sigma, with the gradient (G - <G, W> / sigma u v^T) / sigma."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor, plain: Effective) -> Tensor:
        return matrix * numbers[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.plain = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (matrix, u, v, numbers) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            return second_order(ctx.plain, matrix, u, v, gradient), None, None, None, None
        with without_autocast(matrix.device):
            share = torch.dot(gradient.reshape(-1), matrix.reshape(-1)) * numbers[0]
            return torch.addr(gradient, u, v * share, alpha=-1).mul_(numbers[1]), None, None, None, None


def second_order(plain: Effective, matrix: Tensor, u: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by autograd, for one who wants to differentiate it again."""
    with without_autocast(matrix.device):
        return torch.autograd.grad(plain(matrix, u, v), matrix, gradient, create_graph=True)[0]


def _together(group: Sequence[tuple[SpectralNorm, Tensor, Tensor]], iterations: int, keep: bool) -> None:
    """A round for matrices of one number format on one device, in order of their shapes."""
    constraints, weights, matrices = zip(*group, strict=True)
    starts = [at_least_float32(constraint.u) for constraint in constraints]
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
        numbers = [found if share else found[::3, 0] for found, share in zip(slopes, shares, strict=True)]
    else:
        numbers = _inverses(sigma).unbind()
    # a CPU looks whether the power iteration could see the matrix; elsewhere that would be to wait for the device
    seen = [True] * len(u) if sigma.is_cuda else [EPS < one < 1 / EPS for one in sigma.tolist()]
    for constraint, weight, usual, *rest in zip(constraints, weights, seen, u, v, numbers, strict=True):
        constraint.kept = Kept(weight, weight._version, *rest) if usual else None


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

    Convolution kernels count as matrices (out, in*kh*kw), transposed ones by their output channels, those with groups
    as the block-diagonal matrix of the groups. The bound is that of the reshaped matrix, as in the paper, not of the
    convolution as an operator.

    Raises:
        ValueError: there is no such parameter, or it is a vector.

    Source: Miyato et al. 2018, algorithm 1, arXiv:1802.05957.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import spectral_norm
        >>> layer = spectral_norm(nn.Conv2d(3, 8, 3), n_power_iterations=20)
        >>> _ = layer(torch.zeros(1, 3, 8, 8))  # a forward in training mode advances the power iteration
        >>> bool((torch.linalg.matrix_norm(layer.weight.flatten(1), 2) - 1).abs() < 0.05)
        True
    """
    return register(module, name, lambda weight: SpectralNorm(module, weight, n_power_iterations=n_power_iterations))


@CONSTRAINTS.register("spectral", "sn", "spectral_norm")
class SpectralConfig(ConstraintConfig):
    """Spectral normalization: every singular value of a weight divided by the largest."""

    kind: str = "spectral"
    n_power_iterations: Iterations = Field(default=1, description="power iterations per forward pass in training")
    lipschitz: ClassVar = True
    scale_invariant: ClassVar = True
    put_on: ClassVar = staticmethod(spectral_norm)
