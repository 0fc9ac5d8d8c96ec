"""Weights with orthonormal rows or columns for any value of the parameter, also with weight decay."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.arguments import checked
from orthogan.config.base import Iterations, Positive
from orthogan.linalg import normalize, orthogonality_error, power_iteration, rotations
from orthogan.linalg.polar import polar_factor
from orthogan.linalg.precision import at_least_float32, magnitude, without_autocast
from orthogan.weights.belonging import fitting
from orthogan.weights.constraint import Constraint, register
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig

OrthogonalMethod = Literal["qr", "householder", "cayley", "polar", "bjorck"]
WARM_UP = 15


class Orthogonal(Constraint):
    """Parametrization gain * Q, where Q has orthonormal columns if rows >= columns, and orthonormal rows otherwise.

    The matrix is (out, in*kh*kw). In a convolution with groups, each group has such a matrix, so their block-diagonal
    matrix has the property too. Training starts at the orthogonal matrix nearest to the given weight.
    ``torch.nn.utils.parametrizations.orthogonal`` is not used for two reasons. It makes every kh x kw slice of a kernel
    orthogonal instead of the flattened kernel. Its default Householder map keeps signs inside the trained tensor, so
    that one step of weight decay makes the weight zero. Here the signs are a buffer.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import Orthogonal, orthogonal
        >>> layer = orthogonal(nn.Linear(4, 3), gain=2.0)
        >>> isinstance(layer.parametrizations.weight[0], Orthogonal)
        True
        >>> (layer.weight @ layer.weight.T).detach().round(decimals=3).abs()
        tensor([[4., 0., 0.],
                [0., 4., 0.],
                [0., 0., 4.]])
    """

    parametrizes_freely = True
    signs: Tensor
    u: Tensor

    def __init__(
        self, module: nn.Module, weight: Tensor, *, method: OrthogonalMethod, gain: float, iterations: int
    ) -> None:
        super().__init__(module, weight)
        self.fixes = ("spectrum", "gram") if self.view.rows <= self.view.columns else ("spectrum",)
        self.method: OrthogonalMethod = method
        self.gain, self.iterations = gain, iterations
        matrix = self.tall(at_least_float32(self.matrix(weight.detach())))
        self.register_buffer("signs", torch.ones_like(matrix[..., 0, :]))
        start = normalize(torch.randn(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device))
        self.register_buffer("u", start if method == "bjorck" else None)

    def tall(self, matrix: Tensor) -> Tensor:
        """Return the matrix, transposed if it has more columns than rows. The function is its own inverse."""
        return matrix if self.view.rows // self.groups >= self.view.columns else matrix.mT

    @torch.no_grad()
    def advance(self, weight: Tensor, iterations: int = 1) -> None:
        """Update the estimate of the spectral norm of the parameter (Björck only)."""
        if self.method == "bjorck":
            with without_autocast(weight.device):
                self.u.copy_(
                    power_iteration(at_least_float32(weight), self.u.to(at_least_float32(weight).dtype), iterations)[0]
                )

    def forward(self, parameter: Tensor) -> Tensor:
        """Return the effective weight, computed in at least float32, in the dtype of the parameter."""
        if self.moves:
            self.advance(parameter)
        with without_autocast(parameter.device):
            return self.given(self.weight_of(self.gain * self.tall(self.frame(at_least_float32(parameter)))), parameter)

    def frame(self, parameter: Tensor) -> Tensor:
        """Return orthonormal columns (..., m, n), m >= n, from a parameter of that shape."""
        if self.method == "qr":
            return rotations.qr(parameter)
        if self.method == "polar":
            return rotations.newton_schulz_step(polar_factor(parameter))
        # copies of buffers: a later forward pass may change them in place before this backward pass
        if self.method == "bjorck":
            return bjorck(parameter, self.present(parameter), self.iterations)
        found = _reflected(parameter) if self.method == "householder" else _cayley(parameter)
        return rotations.newton_schulz_step(found) * at_least_float32(self.signs).clone().unsqueeze(-2)

    @torch.no_grad()
    def present(self, parameter: Tensor) -> Tensor:
        """Return u, or a newly computed u if the stored one does not belong to the parameter (Björck only)."""
        u = at_least_float32(self.u).clone()
        if self.training:
            return u
        return fitting(parameter, u, normalize((parameter.mT @ u.unsqueeze(-1)).squeeze(-1)))[0]

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the parameter of the orthogonal matrix nearest to the assigned ``weight``."""
        weight = self.assignable(weight)
        if weight.is_meta:
            return self.tall(self.matrix(weight)).contiguous()
        # on the CPU: not every device supports float64 and these decompositions
        target = polar_factor(self.tall(self.matrix(weight)).to("cpu", torch.float64))
        if self.method == "householder":
            # LAPACK's reflections give the target up to the signs of its columns
            parameter = torch.geqrf(target)[0].tril(-1)
            self.signs.copy_(torch.where((_reflected(parameter) * target).sum(-2) < 0, -1.0, 1.0))
        elif self.method == "cayley":
            signs = _regular_signs(target[..., : target.shape[-1], :])
            self.signs.copy_(signs)
            parameter = _cayley_parameter(target * signs.unsqueeze(-2))
        else:
            parameter = target
        parameter = parameter.to(weight).contiguous()
        self.advance(parameter, WARM_UP)
        return parameter

    @torch.no_grad()
    def facts(self, weight: Tensor) -> dict[str, float]:
        """Return ||Q^T Q - I||_F."""
        return {"orthogonality_error": float(orthogonality_error(self.frame(at_least_float32(weight))).norm())}

    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Treat the rows of all groups as one matrix if the checkpoint does, as older versions did."""
        stored = state.get(f"{prefix}original")
        if self.groups > 1 and isinstance(stored, Tensor) and stored.dim() == 2:
            self.groups = 1
            self.signs = self.signs.new_ones(stored.shape[1])
            if self.method == "bjorck":
                self.u = self.u.new_zeros(stored.shape[0])
            parameters.original.data = parameters.original.data.new_empty(stored.shape)


@checked
def orthogonal(
    module: nn.Module, name: str = "weight", method: OrthogonalMethod = "qr", *, gain: float = 1.0, iterations: int = 12
) -> nn.Module:
    """Keep the rows of ``module.name`` orthonormal, or the columns if there are more rows than columns.

    Kernels are treated as matrices (out, in*kh*kw), one per group. This bounds the operator norm of a convolution by
    sqrt(kh*kw), but does not make it an orthogonal operator (RKO). For that, use
    ``orthogan.layers.SkewOrthogonalConv2d``.

    Args:
        method: "qr" (sign-fixed, fastest), "householder" (learned reflections), "cayley", "polar" (nearest orthogonal
            matrix, by SVD), or "bjorck" (approximation of the same, by ``iterations`` matrix products).
        gain: fixed factor; 1/sqrt(kh*kw) makes a stride-1 convolution 1-Lipschitz.

    Raises:
        ValueError: the method is unknown, the gain is not positive and finite, or there is no such weight.

    Example:
        >>> from torch import nn
        >>> from orthogan.linalg import orthogonality_error
        >>> from orthogan.weights import orthogonal
        >>> layer = orthogonal(nn.Conv2d(3, 8, 3))
        >>> bool(orthogonality_error(layer.weight.flatten(1)) < 1e-5)
        True
    """
    if method not in get_args(OrthogonalMethod):
        raise ValueError(f"method {method!r}: choose {', '.join(get_args(OrthogonalMethod))}")
    if not 0 < gain < math.inf or iterations < 1:
        raise ValueError(f"gain is {gain} and iterations is {iterations}: both must be positive and finite")
    return register(
        module, name, lambda weight: Orthogonal(module, weight, method=method, gain=gain, iterations=iterations)
    )


@CONSTRAINTS.register("orthogonal")
class OrthogonalConfig(ConstraintConfig):
    """Orthonormal rows or columns of every weight."""

    kind: str = "orthogonal"
    method: OrthogonalMethod = Field(default="qr", description="how to orthonormalize the weight")
    gain: Positive = Field(default=1.0, description="fixed factor on the weight")
    iterations: Iterations = Field(default=12, description="bjorck: number of iterations")
    lipschitz: ClassVar = True
    put_on: ClassVar = staticmethod(orthogonal)


def bjorck(matrix: Tensor, u: Tensor, iterations: int) -> Tensor:
    """Return ``matrix`` (..., m, n) after ``iterations`` Björck steps W <- W (3 I - W^T W) / 2, starting at W / sigma.

    The iteration is that of Björck & Bowie 1971.

    Args:
        u: unit vector (..., m) near the top left singular vector. sigma = ||W^T u|| is treated as a constant.
    """
    matrix = matrix / magnitude(matrix, -2, -1)  # weight decay may have made it arbitrarily small
    sigma = (
        (matrix.mT @ u).norm() if matrix.dim() == 2 else (matrix.mT @ u.unsqueeze(-1)).norm(dim=(-2, -1), keepdim=True)
    )
    x = matrix / sigma.detach().clamp_min(1e-12)
    for _ in range(iterations):
        x = rotations.newton_schulz_step(x)
    return x


def _reflected(parameter: Tensor) -> Tensor:
    lower = parameter.tril(-1)
    return rotations.reflections(lower + torch.eye(*lower.shape[-2:], dtype=lower.dtype, device=lower.device))


def _cayley(parameter: Tensor) -> Tensor:
    """Return [(I + A)^-1 (I - A); -2 V (I + A)^-1], A = U - U^T + V^T V for [U; V] (Trockman & Kolter 2021)."""
    n = parameter.shape[-1]
    upper, rest = parameter[..., :n, :].triu(1), parameter[..., n:, :]
    a = upper - upper.mT + rest.mT @ rest
    eye = torch.eye(n, dtype=a.dtype, device=a.device)
    inverse = torch.linalg.solve(eye + a, eye.expand_as(a))  # a batch of matrices, not of vectors
    return torch.cat([inverse @ (eye - a), -2 * rest @ inverse], -2)


def _cayley_parameter(frame: Tensor) -> Tensor:
    n = frame.shape[-1]
    eye = torch.eye(n, dtype=frame.dtype, device=frame.device)
    top = frame[..., :n, :]
    a = torch.linalg.solve(eye + top, eye - top, left=False)
    rest = -0.5 * frame[..., n:, :] @ (eye + a)
    return torch.cat([(a - rest.mT @ rest).triu(1), rest], -2)


def _regular_signs(top: Tensor) -> Tensor:
    """Return signs d such that I + top * d is regular: each pivot of top + diag(d) is pushed away from zero."""
    work = top.clone()
    signs = torch.ones_like(top[..., 0])
    for i in range(top.shape[-1]):
        signs[..., i] = torch.where(work[..., i, i] < 0, -1.0, 1.0)
        work[..., i, i] += signs[..., i]
        below = work[..., i + 1 :, i : i + 1] / work[..., i : i + 1, i : i + 1]
        work[..., i + 1 :, i + 1 :] -= below * work[..., i : i + 1, i + 1 :]
    return signs
