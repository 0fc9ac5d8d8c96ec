"""Stable rank normalisation (Sanyal, Torr & Dokania 2020) as a parametrization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.linalg import stable_rank_scale
from orthogan.weights.matrix import exact
from orthogan.weights.spectral import SpectralNorm, register


class StableRankNorm(SpectralNorm):
    """W -> s W/sigma + (1 - s) u v^T: spectral norm 1, and a stable rank of at most r.

    This is algorithm 2 of the paper (k = 1, fused with spectral normalisation) in a form without a branch: s is
    ``orthogan.linalg.stable_rank_scale``, and s = 1 (spectral normalisation alone) where the rank is low enough.
    The target is r = max(1, c * min(rows, columns)); the paper's authors' code fails where c * min < 1.
    """

    def __init__(self, module: nn.Module, weight: Tensor, *, c: float, n_power_iterations: int = 1) -> None:
        super().__init__(module, weight, n_power_iterations=n_power_iterations)
        if not 0 < c <= 1:
            raise ValueError(f"c is {c}: the target stable rank is a share of min(rows, columns), in (0, 1]")
        self.target = max(1.0, c * min(self.view.rows, self.view.columns))

    def scale(self, matrix: Tensor) -> Tensor:
        """s for ``matrix`` under the present singular vectors."""
        sigma = torch.dot(exact(self.u), matrix @ exact(self.v))
        return stable_rank_scale(matrix, sigma, self.target)

    def effective(self, matrix: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        """The constrained matrix."""
        scale = stable_rank_scale(matrix, sigma, self.target)
        return torch.addr(matrix * (scale / sigma.clamp_min(1e-12)), u, v * (1 - scale))


def stable_rank_norm(
    module: nn.Module, name: str = "weight", c: float = 0.7, k: int = 1, n_power_iterations: int = 1
) -> nn.Module:
    """Keep the spectral norm of ``module.name`` at 1 and its stable rank at or below c * min(rows, columns).

    Args:
        c: in (0, 1]. c = 1 is spectral normalisation.
        k: how many of the largest singular values keep their proportion; 1, as in the paper's networks.

    Raises:
        ValueError: a value out of range, or no such weight.
    """
    if k != 1:
        raise ValueError(f"k is {k}: the trainable constraint preserves k = 1 singular value")
    return register(
        module, name, lambda weight: StableRankNorm(module, weight, c=c, n_power_iterations=n_power_iterations)
    )
