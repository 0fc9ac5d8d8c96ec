"""A linear subspace of feature maps with a latent of its own (EigenGAN; He, Kan & Shan 2021, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.shapes import check_features
from orthogan.linalg import gram_residual
from orthogan.linalg.precision import at_least_float32
from orthogan.weights.effective import effective_weight


class LatentSubspace(nn.Module):
    """z (n, dims) -> mu + sum_k L_k z_k U_k (n, c, h, w): each row of U is a basis image, L_k is its importance.

    U starts with orthonormal rows, L at 3 * dims, ..., 6, 3, and mu at zero, as published. Training keeps the rows
    orthonormal only if something keeps it so: ``penalty`` in the loss, a gradient rule on U, or
    ``orthogan.weights.orthogonal(layer, "U")`` for rows that are orthonormal at every step. At least float32, also
    inside autocast; the output has the dtype of z.

    Args:
        dims: number of latent dimensions.
        shape: (c, h, w) of the feature map.

    Raises:
        ValueError: dims below 1, an empty map, or more dims than numbers in the map.
    """

    matrix_name = "U"  # what the word "subspace" of orthogan.weights.select chooses
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
        """(n, dims) -> (n, c, h, w).

        Raises:
            ValueError: an input of another shape.
        """
        check_features(self, z, self.dims, batch=True)
        with torch.autocast(z.device.type, enabled=False):
            flat = functional.linear(
                at_least_float32(z) * at_least_float32(self.L), at_least_float32(self.U).mT, at_least_float32(self.mu)
            )
            return flat.unflatten(1, self.shape).to(z.dtype)

    @property
    def basis(self) -> Tensor:
        """The effective U (dims, c*h*w): of a constrained one what the constraint makes of it."""
        return effective_weight(self, "U")

    def penalty(self) -> Tensor:
        """||U U^T - I||_F^2, 0-d, of the effective U.

        The authors add half of it, summed over the layers; the PyTorch port and the NOG paper 100 times the mean of
        the dims^2 squared entries, averaged over the layers: 100 / dims^2 of this for one layer.
        """
        return gram_residual(self.basis, "rows").square().sum()

    @torch.no_grad()
    def orthogonality_error(self) -> float:
        """||U U^T - I||_F of the effective U."""
        return float(gram_residual(self.basis, "rows").norm())

    def extra_repr(self) -> str:
        """Of ``print(net)``."""
        return f"{self.dims}, {self.shape}"
