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

from orthogan.arguments import checked, integer
from orthogan.config.base import Iterations
from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.power import EPS, power_iterations
from orthogan.linalg.precision import at_least_float32, magnitude, second_order, without_autocast
from orthogan.linalg.stable_rank import damped, divisor, stable_rank_slopes
from orthogan.weights.belonging import along, belong, can_look, fitting, top_vectors
from orthogan.weights.constraint import Constraint, register
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig

Effective = Callable[[Tensor, Tensor, Tensor], Tensor]
WARM_UP = 15  # power iterations at registration, so that the first forward pass is already normalized
USUAL = 2.0**14  # an assigned parameter is rescaled if its largest entry is outside [1 / USUAL, USUAL]
WIDEST = 2.0**36  # outside [1 / WIDEST, WIDEST], squares of the entries may leave the range of float32


class Kept(NamedTuple):
    """Cached results for one version of ``weight``: its singular vectors (of ``rows``) and numbers for ``closed``.

    ``effective`` is the effective weight if it was computed: on a CPU, for a weight that needs no gradient.
    """

    weight: Tensor
    version: int
    u: Tensor
    v: Tensor
    numbers: Tensor
    effective: Tensor | None = None


class SpectralNorm(Constraint):
    """Parametrization W / sigma with sigma = u^T W v; u and v follow W by power iteration.

    The result is differentiable in W, and u and v are treated as constants. A forward pass in training mode advances
    them by ``n_power_iterations``. A forward pass in eval mode or inside ``orthogan.weights.hold_power_iteration`` does
    not, nor does one that activation checkpointing repeats. ``orthogan.weights.PowerIterationScheduler`` advances all
    layers together, once per step. All computations are in float32 (float64 weights stay float64), also inside
    autocast. A kernel with groups is treated as the block-diagonal matrix that it represents: each group has its own u
    and v, and sigma is the largest over the groups.

    If u and v belong to another weight, a forward pass in eval mode computes new vectors for the current weight and
    leaves the buffers unchanged. A zero weight stays zero. If sigma is zero or below ``SMALL`` of
    ``orthogan.linalg.stable_rank``, the gradient is scaled down from 1 / sigma. A gradient of that size would dominate
    the state of an optimizer permanently.

    ``effective`` defines the constraint. In eager mode, where every kernel is launched separately, ``closed`` computes
    the same result with an analytic gradient, in far fewer kernels. ``share`` is None for a kind without a closed form,
    0 for spectral normalization, and otherwise as in ``orthogan.linalg.stable_rank.stable_rank_slopes``.

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
    vectors: int | None = None  # number of columns of u and v if there are several; None for single vectors

    def __init__(self, module: nn.Module, weight: Tensor, *, n_power_iterations: int = 1) -> None:
        super().__init__(module, weight)
        n_power_iterations = integer("n_power_iterations", n_power_iterations)
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations is {n_power_iterations}: must be at least 1")
        self.n_power_iterations = n_power_iterations
        matrix = at_least_float32(self.matrix(weight.detach()))
        u, v = self.iterate(matrix, self.start(matrix), 1 if matrix.is_meta else WARM_UP)  # meta: only the shapes
        self.register_buffer("u", u)
        self.register_buffer("v", v)
        self._made_for: Tensor | None = weight  # the first weight that right_inverse gets

    @property
    def smaller_side(self) -> int:
        """Return the number of singular values of the (block-diagonal) matrix."""
        return min(self.view.rows, self.groups * self.view.columns)

    def start(self, matrix: Tensor) -> Tensor:
        """Return a random u."""
        return normalize(torch.randn(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device))

    def iterate(self, matrix: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """Return u and v closer to the top singular vectors."""
        return power_iteration(matrix, u, iterations)

    @torch.no_grad()
    def advance(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Iterate u and v toward the top singular vectors of ``weight`` and return them, separate from the buffers."""
        with without_autocast(weight.device):
            u, v = self.iterate(at_least_float32(self.rows(weight)), at_least_float32(self.u), self.n_power_iterations)
        self.u.copy_(u)
        self.v.copy_(self.reordered(v, weight, back=True))
        return u, v

    @staticmethod
    @torch.no_grad()
    def advance_batch(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """Call ``advance`` for all constraints; those with the same dtype and device share a few kernels."""
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
        """Return the effective weight, computed in at least float32, in the dtype of ``weight``."""
        compiling = torch.compiler.is_compiling()  # the compiler fuses kernels and needs the plain formula
        kept: Kept | None = None if compiling else self.kept
        if kept is not None and not (kept.weight is weight and kept.version == weight._version):
            kept = None
        if kept is not None and kept.effective is not None and not weight.requires_grad:
            return kept.effective
        fresh = self.advance(weight) if self.moves else None
        with without_autocast(weight.device):
            numbers = None
            if kept is not None:
                matrix, u, v, numbers = at_least_float32(self.rows(weight)), kept.u, kept.v, kept.numbers
            else:
                matrix, u, v = self.present(weight, fresh)
            # forward-mode derivatives (a tangent) also use the plain formula
            if compiling:
                found = self.effective(matrix, u, v)
            elif self.share is None or self.groups > 1 or forward_ad.unpack_dual(matrix).tangent is not None:
                found = self.plain(matrix, u, v)
            else:
                found = self.closed(matrix, u, v, numbers)
            return self.finished(found, weight)

    def finished(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """Return the effective weight of the constrained ``matrix``, in the layout and dtype of ``weight``."""
        return self.given(self.from_rows(matrix, weight), weight)

    def present(self, weight: Tensor, fresh: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the matrix of ``weight`` and the current singular vectors: ``fresh``, or those of the buffers."""
        matrix = at_least_float32(self.rows(weight))
        # copies: a later forward pass may advance the buffers before this backward pass
        u, v = fresh or (at_least_float32(self.u).clone(), self.reordered(at_least_float32(self.v).clone(), weight))
        if can_look(weight) and (not self.training or (not weight.is_cuda and not _usual(matrix, u, v))):
            matrix, u, v = self._settled(weight, matrix, u, v)
        elif not self.training:
            u, v = fitting(matrix.detach(), u, v)
        if self.groups > 1 and self.vectors is None:
            u, v = of_the_top_group(matrix, u, v)
        return matrix, u, v

    def _settled(self, weight: Tensor, matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``matrix`` at a usual scale and its singular vectors: ``u`` and ``v`` if they belong to it."""
        key = None
        if not weight.is_inference():
            # the sum detects writes that the version does not count, if reading it needs no device synchronization
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
            # the gradient of a tiny matrix is that at the usual scale: see `damped`
            tiny = float(size) < 1
            matrix = matrix.detach() / size + (matrix - matrix.detach()) if tiny else matrix / size
        u, v = found or (u, v)
        return matrix, u, v

    def rows(self, weight: Tensor) -> Tensor:
        """Return the matrix of ``weight`` with the columns in memory order, which avoids a copy.

        Singular values and u do not depend on the order of the columns. v has the same order as the columns.
        """
        if self.channels_last(weight):
            return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        return self.matrix(weight)

    def from_rows(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """Return the weight of a ``matrix`` with columns as in ``rows``, in the same memory layout."""
        if self.channels_last(weight):
            return matrix.reshape(weight.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        return self.weight_of(matrix)

    def reordered(self, v: Tensor, weight: Tensor, back: bool = False) -> Tensor:
        """Return v (in * kh * kw) in the column order of ``rows``, or with ``back`` in the order of the buffer."""
        if not self.channels_last(weight):
            return v
        inputs, *kernel = weight.shape[1:]
        if back:
            return v.reshape(*kernel, inputs).permute(2, 0, 1).reshape(-1)
        return v.reshape(inputs, *kernel).permute(1, 2, 0).reshape(-1)

    def channels_last(self, weight: Tensor) -> bool:
        """Return whether ``weight`` is a kernel stored in memory with its input channels last."""
        if weight.dim() != 4 or self.view.transposed or self.u.dim() > 1:  # several vectors, or groups
            return False
        return not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the constrained matrix."""
        return matrix / divisor(inner(matrix, u, v))

    def plain(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return ``effective``, with the gradient of a nearly zero matrix scaled down as ``damped`` describes."""
        with torch.no_grad():
            sigma = inner(matrix, u, v) if self.vectors is None else along(matrix, u[..., 0], v[..., 0]).amax()
            inverse = divisor(sigma).reciprocal()
            factor = damped(inverse) / inverse
        return self.effective(
            torch.where(factor == 1, matrix, matrix.detach() + factor * (matrix - matrix.detach())), u, v
        )

    def closed(self, matrix: Tensor, u: Tensor, v: Tensor, numbers: Tensor | None) -> Tensor:
        """Return ``effective``, using ``numbers`` (1 / sigma and the factor of its gradient) if they are known."""
        if numbers is None:
            with torch.no_grad():
                numbers = _inverses(torch.dot(u, matrix @ v))
        return _Divided.apply(matrix, u, v, numbers, self.plain)  # pyright: ignore

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the unconstrained parameter for an assigned ``weight``, at a usual scale, and fit u and v to it.

        The scale does not affect the effective weight. However, an optimizer step would hardly change a very large
        parameter and would change a very small one too much.
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
        # in the format of ``size``, because float16 cannot hold the power of two above its largest numbers
        return weight if usual else (weight.to(size.dtype) / size.reshape([1] * weight.dim())).to(weight.dtype)

    def fit(self, matrix: Tensor) -> None:
        """Set u and v to the top singular vectors of ``matrix``."""
        if bool(torch.isfinite(matrix).all()) and bool((matrix != 0).any()):
            for buffer, found in zip((self.u, self.v), top_vectors(matrix, self.vectors), strict=True):
                buffer.copy_(found)

    @torch.no_grad()
    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Prepare for a checkpoint: without singular vectors, compute them, and use its convention for groups."""
        weight, u = state.get(f"{prefix}original"), state.get(f"{own}u")
        if isinstance(u, Tensor) and self.groups > 1 and u.dim() == (1 if self.vectors is None else 2):
            self.ungroup(u, state.get(f"{own}v"))
        missing = u is None or f"{own}v" not in state
        if isinstance(weight, Tensor) and missing and weight.shape == parameters.original.shape and can_look(weight):
            matrix = at_least_float32(self.matrix(weight.to(self.u.device)))
            self.fit(matrix / magnitude(matrix, *range(-matrix.dim(), 0)))

    def ungroup(self, u: Tensor, v: Tensor | None) -> None:
        """Treat the rows of all groups as one matrix without zeros, as the checkpoint does."""
        self.groups = 1
        self.u = self.u.new_zeros(u.shape)
        self.v = self.v.new_zeros(v.shape if v is not None else (self.view.columns, *u.shape[1:]))


def _usual(matrix: Tensor, u: Tensor, v: Tensor) -> bool:
    """Return whether u^T W v is nonzero and its powers stay in the range of float32."""
    with torch.no_grad():
        sigma = along(matrix, u, v) if u.dim() < matrix.dim() else along(matrix, u[..., 0], v[..., 0])
        return EPS < float(sigma.amax()) < 1 / EPS


def inner(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return u^T W v, 0-d, for a matrix or for the blocks of a block-diagonal matrix."""
    return torch.dot(u, matrix @ v) if matrix.dim() == 2 else along(matrix, u, v).sum()


def of_the_top_group(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return u (groups, m) and v (groups, n) that are zero except for the group with the largest u^T W v."""
    with torch.no_grad():
        sigmas = along(matrix, u, v)
        # one_hot does not support torch.func
        top = (torch.arange(len(sigmas), device=sigmas.device) == sigmas.argmax()).to(u.dtype).unsqueeze(-1)
        return u * top, v * top


def _inverses(sigma: Tensor) -> Tensor:
    """Return (..., 2): 1 / sigma, and the factor of the gradient."""
    inverse = divisor(sigma).reciprocal()
    return torch.stack([inverse, damped(inverse)], -1)


class _Divided(torch.autograd.Function):
    """W / sigma with the gradient (G - <G, W> / sigma u v^T) / sigma."""

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
            return second_order(ctx.plain, gradient, matrix, u, v), None, None, None, None
        with without_autocast(matrix.device):
            share = torch.dot(gradient.reshape(-1), matrix.reshape(-1)) * numbers[0]
            return torch.addr(gradient, u, v * share, alpha=-1).mul_(numbers[1]), None, None, None, None


def _together(group: Sequence[tuple[SpectralNorm, Tensor, Tensor]], iterations: int, keep: bool) -> None:
    """Run one round for matrices of the same dtype on one device, sorted by shape."""
    constraints, weights, matrices = zip(*group, strict=True)
    starts = [at_least_float32(constraint.u) for constraint in constraints]
    many, wide, sigma = power_iterations(matrices, starts, iterations, stacked=matrices[0].is_cuda)
    u = [row[: len(m)] for row, m in zip(many.unbind(), matrices, strict=True)]
    v = [row[: m.shape[1]] for row, m in zip(wide.unbind(), matrices, strict=True)]
    ordered = [c.reordered(one, weight, back=True) for c, one, weight in zip(constraints, v, weights, strict=True)]
    torch._foreach_copy_([*(c.u for c in constraints), *(c.v for c in constraints)], [*u, *ordered])  # pyright: ignore
    if not keep:
        return
    # a kind without a closed form may be in the group; it uses only the vectors
    shares = tuple(constraint.share or 0.0 for constraint in constraints)
    if any(shares):
        squares = _squares(matrices)
        slopes = stable_rank_slopes(sigma, squares, _on_device(shares, sigma.dtype, sigma.device)).unbind()
        numbers = [found if share else found[::3, 0] for found, share in zip(slopes, shares, strict=True)]
    else:
        numbers = _inverses(sigma).unbind()
    # on a CPU, check whether the power iteration could see the matrix; elsewhere the check would wait for the device
    seen = [True] * len(u) if sigma.is_cuda else [EPS < one < 1 / EPS for one in sigma.tolist()]
    for constraint, weight, matrix, usual, *rest in zip(
        constraints, weights, matrices, seen, u, v, numbers, strict=True
    ):
        found = None
        # on a GPU, where phases are compiled, it would not be used
        if usual and not weight.is_cuda and not weight.requires_grad and constraint.share is not None:
            found = constraint.finished(constraint.closed(matrix, *rest), weight)
        constraint.kept = Kept(weight, weight._version, *rest, effective=found) if usual else None


def _squares(matrices: Sequence[Tensor]) -> Tensor:
    """Return ||W||_F^2 of each matrix."""
    if matrices[0].is_cuda:
        return torch.stack(torch._foreach_norm(matrices)).square()  # pyright: ignore
    return torch.stack([torch.dot(m.reshape(-1), m.reshape(-1)) for m in matrices])  # faster than norms on a CPU


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)  # cached, because the copy makes the CPU wait


@checked
def spectral_norm(module: nn.Module, name: str = "weight", n_power_iterations: int = 1) -> nn.Module:
    """Keep the spectral norm of ``module.name`` at 1 and return ``module``.

    Convolution kernels are treated as matrices (out, in*kh*kw), transposed kernels by their output channels, and
    kernels with groups as the block-diagonal matrix of the groups. The bound holds for the reshaped matrix, as in the
    paper, not for the convolution as an operator.

    Args:
        module: a layer with a weight.
        name: name of the weight.
        n_power_iterations: power iterations per forward pass in training mode.

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
    """Spectral normalization: divides the singular values of a weight by the largest one."""

    kind: str = "spectral"
    n_power_iterations: Iterations = Field(default=1, description="power iterations per forward pass in training")
    lipschitz: ClassVar = True
    scale_invariant: ClassVar = True
    put_on: ClassVar = staticmethod(spectral_norm)
