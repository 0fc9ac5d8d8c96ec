"""A weight seen as a matrix with one row per output, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *Transposed)


class MatrixView:
    """Kernels (out, in, kh, kw) as (out, in*kh*kw); transposed ones by their output channels; the rest flattened.

    A kernel with groups stands for a block-diagonal matrix, one block per group: ``blocks`` and ``block_diagonal``
    give that. ``to`` gives the rows (out, in/groups*kh*kw) of all groups, without the zeros beside the blocks. A
    transposed kernel is stored as (in, out/groups, kh, kw), one group after the other along its first dimension.
    """

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        self.shape = tuple(weight.shape)
        kernel = isinstance(module, _ConvNd) and weight.dim() == 2 + len(module.kernel_size)
        self.groups: int = module.groups if kernel else 1  # pyright: ignore
        self.transposed = kernel and isinstance(module, Transposed)
        self.rows, self.columns = self.to(weight.detach()).shape

    def to(self, weight: Tensor) -> Tensor:
        """The matrix (rows, columns) of ``weight``: of all groups, one below the other."""
        if not self.transposed:
            return weight.flatten(1)
        grouped = weight.unflatten(0, (self.groups, -1))  # group, in/groups, out/groups, kernel
        return grouped.transpose(1, 2).flatten(0, 1).flatten(1)

    def back(self, matrix: Tensor) -> Tensor:
        """The weight of ``matrix`` (rows, columns)."""
        if not self.transposed:
            return matrix.reshape(self.shape)
        per_group = (self.groups, self.shape[1], self.shape[0] // self.groups, *self.shape[2:])
        return matrix.reshape(per_group).transpose(1, 2).reshape(self.shape)

    def blocks(self, weight: Tensor) -> Tensor:
        """The matrix of each group (groups, rows / groups, columns); a single one without groups."""
        return self.to(weight).unflatten(0, (self.groups, self.rows // self.groups))

    def block_diagonal(self, weight: Tensor) -> Tensor:
        """The matrix (rows, groups * columns) that ``weight`` stands for, with the zeros between the groups."""
        return self.to(weight) if self.groups == 1 else torch.block_diag(*self.blocks(weight).unbind())
