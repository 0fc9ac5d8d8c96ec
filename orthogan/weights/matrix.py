"""A weight seen as a matrix with one row an output, and back."""

from __future__ import annotations

from torch import Tensor, nn

Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *Transposed)


class MatrixView:
    """Kernels (out, in, kh, kw) as (out, in*kh*kw); transposed ones by their output channels; the rest flattened.

    A transposed kernel is stored as (in, out/groups, kh, kw), a group after the other along its first dimension.
    """

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        self.shape = tuple(weight.shape)
        self.groups = module.groups if isinstance(module, Transposed) else 0
        self.rows, self.columns = self.to(weight.detach()).shape

    def to(self, weight: Tensor) -> Tensor:
        """The matrix of ``weight``."""
        if not self.groups:
            return weight.reshape(weight.shape[0], -1)
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])  # group, in/groups, out/groups, kernel
        return grouped.transpose(1, 2).reshape(self.groups * weight.shape[1], -1)

    def back(self, matrix: Tensor) -> Tensor:
        """The weight of ``matrix``."""
        if not self.groups:
            return matrix.reshape(self.shape)
        per_group = (self.groups, self.shape[1], self.shape[0] // self.groups, *self.shape[2:])
        return matrix.reshape(per_group).transpose(1, 2).reshape(self.shape)
