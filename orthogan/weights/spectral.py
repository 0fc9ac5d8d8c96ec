"""Spectral normalisation (Miyato et al. 2018) as a parametrization: W -> W / sigma(W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.precision import exact
from orthogan.weights.constraint import Constraint, register

WARM_UP = 15  # power iterations at registration, so that the first forward is already normalised


class SpectralNorm(Constraint):
    """W / sigma with sigma = u^T W v, differentiable in W; u and v are constants that follow W by power iteration.

    A training forward advances them by ``n_power_iterations``, an eval forward and one within
    ``orthogan.weights.frozen`` by none. All of it is float32 (float64 weights stay float64), also inside autocast.
    """

    u: Tensor
    v: Tensor

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
    def advance(self, weight: Tensor) -> None:
        """Iterate u and v towards the top singular vectors of ``weight``."""
        with torch.autocast(weight.device.type, enabled=False):
            u, v = self.iterate(exact(self.view.to(weight)), exact(self.u), self.n_power_iterations)
        self.u.copy_(u)
        self.v.copy_(v)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, in at least float32."""
        if self.training and not self.held:
            self.advance(weight)
        with torch.autocast(weight.device.type, enabled=False):
            matrix = exact(self.view.to(weight))
            # copies: a later forward may advance the buffers before this one's backward
            return self.view.back(self.effective(matrix, exact(self.u).clone(), exact(self.v).clone()))

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The constrained matrix."""
        return matrix / torch.dot(u, matrix @ v).clamp_min(1e-12)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight assigns the unconstrained one."""
        return weight


def spectral_norm(module: nn.Module, name: str = "weight", n_power_iterations: int = 1) -> nn.Module:
    """Keep the spectral norm of ``module.name`` at 1; returns ``module``.

    Convolution kernels count as matrices (out, in*kh*kw), transposed ones by their output channels. The bound is
    that of the reshaped matrix, as in the paper, not of the convolution as an operator.

    Raises:
        ValueError: there is no such parameter, or it is a vector.
    """
    return register(module, name, lambda weight: SpectralNorm(module, weight, n_power_iterations=n_power_iterations))
