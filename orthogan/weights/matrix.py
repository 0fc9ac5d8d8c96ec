"""Conversion between a weight and its matrix, which has one row per output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *Transposed)


class MatrixView:
    """A view of a weight as a matrix.

    Kernels (out, in, kh, kw) become (out, in*kh*kw). Transposed kernels are arranged by their output channels. Other
    weights are flattened.

    A kernel with groups represents a block-diagonal matrix with one block per group: see ``blocks`` and
    ``block_diagonal``. ``to`` returns the rows (out, in/groups*kh*kw) of all groups without the zeros outside the
    blocks. A transposed kernel is stored as (in, out/groups, kh, kw), with the groups in order along its first
    dimension.
    """

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        self.shape = tuple(weight.shape)
        kernel = isinstance(module, _ConvNd) and weight.dim() == 2 + len(module.kernel_size)
        self.groups: int = module.groups if kernel else 1  # pyright: ignore
        self.transposed = kernel and isinstance(module, Transposed)
        self.rows, self.columns = self.to(weight.detach()).shape

    def to(self, weight: Tensor) -> Tensor:
        """Return ``weight`` as a matrix (rows, columns), with the groups stacked vertically."""
        if not self.transposed:
            return weight.flatten(1)
        grouped = weight.unflatten(0, (self.groups, -1))  # group, in/groups, out/groups, kernel
        return grouped.transpose(1, 2).flatten(0, 1).flatten(1)

    def back(self, matrix: Tensor) -> Tensor:
        """Return the weight of ``matrix`` (rows, columns)."""
        if not self.transposed:
            return matrix.reshape(self.shape)
        per_group = (self.groups, self.shape[1], self.shape[0] // self.groups, *self.shape[2:])
        return matrix.reshape(per_group).transpose(1, 2).reshape(self.shape)

    def blocks(self, weight: Tensor) -> Tensor:
        """Return the matrix of each group (groups, rows / groups, columns); without groups, there is one."""
        return self.to(weight).unflatten(0, (self.groups, self.rows // self.groups))

    def block_diagonal(self, weight: Tensor) -> Tensor:
        """Return the matrix (rows, groups * columns) that ``weight`` represents, including the zeros between groups."""
        return self.to(weight) if self.groups == 1 else torch.block_diag(*self.blocks(weight).unbind())
