"""A linear subspace of feature maps with its own latent (EigenGAN; He, Kan & Shan 2021, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.shapes import check_features
from orthogan.linalg import gram_residual
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.weights.effective import effective_weight


class LatentSubspace(nn.Module):
    """A linear subspace z (n, dims) -> mu + sum_k L_k z_k U_k (n, c, h, w).

    Each row of U is a basis image, and L_k is its importance. Initially U has orthonormal rows, L is
    3 * dims, ..., 6, 3, and mu is zero, as published. The rows do not stay orthonormal in training by themselves. Add
    ``penalty`` to the loss, use a gradient rule on U, or use ``orthogan.weights.orthogonal(layer, "U")`` for rows that
    are orthonormal at every step. The computation uses at least float32, also inside autocast, and the output has the
    dtype of z.

    Args:
        dims: number of latent dimensions.
        shape: (c, h, w) of the feature map.

    Raises:
        ValueError: dims is below 1, the map is empty, or dims exceeds the number of entries in the map.
    """

    matrix_name = "U"  # the matrix that the word "subspace" of orthogan.weights.select selects
    U: Tensor  # (dims, c*h*w)

    def __init__(self, dims: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape is {tuple(shape)}: must be (channels, height, width), each at least 1")
        size = math.prod(shape)
        if not 1 <= dims <= size:
            raise ValueError(f"dims is {dims}: a map of {size} numbers has 1 to {size} orthonormal basis images")
        self.dims, self.shape = dims, tuple(shape)
        self.U = nn.Parameter(nn.init.orthogonal_(torch.empty(dims, size)))
        self.L = nn.Parameter(3.0 * torch.arange(dims, 0, -1))
        self.mu = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, dims) -> (n, c, h, w).

        Raises:
            ValueError: the input has another shape.
        """
        check_features(self, z, self.dims, batch=True)
        with without_autocast(z.device):
            flat = functional.linear(
                at_least_float32(z) * at_least_float32(self.L), at_least_float32(self.U).mT, at_least_float32(self.mu)
            )
            return flat.unflatten(1, self.shape).to(z.dtype)

    @property
    def basis(self) -> Tensor:
        """Return the effective U (dims, c*h*w), including a constraint on it."""
        return effective_weight(self, "U")

    def penalty(self) -> Tensor:
        """Return ||U U^T - I||_F^2, 0-d, of the effective U.

        The authors add half of it, summed over the layers. The PyTorch port and the NOG paper add 100 times the mean of
        the dims^2 squared entries, averaged over the layers: 100 / dims^2 of this value for one layer.
        """
        return gram_residual(self.basis, "rows").square().sum()

    @torch.no_grad()
    def orthogonality_error(self) -> float:
        """Return ||U U^T - I||_F of the effective U."""
        return float(gram_residual(self.basis, "rows").norm())

    def extra_repr(self) -> str:
        """Return the text that ``print(net)`` shows."""
        return f"{self.dims}, {self.shape}"
