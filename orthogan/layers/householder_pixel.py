"""The Householder projector as the transposed convolution of one pixel: the first layer of a DCGAN-like generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.layers.householder_projector import HouseholderProjector
from orthogan.layers.shapes import check_numbers
from orthogan.linalg.precision import at_least_float32
from orthogan.weights.effective import effective_weight


class HouseholderPixel(HouseholderProjector):
    """(n, in, 1, 1) -> (n, out, kh, kw) through ``rank`` orthonormal directions; one bias a channel.

    On a single pixel a transposed convolution is the matrix (out*kh*kw, in) of its kernels: the projector is that
    matrix, whatever the stride.

    Args:
        shape: (out, kh, kw).

    Raises:
        ValueError: as ``HouseholderProjector``.
    """

    matrix_type = "transposed"

    def __init__(self, in_channels: int, shape: tuple[int, int, int], rank: int = 10, *, bias: bool = True) -> None:
        channels, height, width = shape
        super().__init__(in_channels, channels * height * width, rank, bias=False)
        self.shape = (channels, height, width)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    @classmethod
    @torch.no_grad()
    def from_transposed(
        cls, conv: nn.ConvTranspose2d, rank: int = 10, *, scale: float | None = 1.0
    ) -> HouseholderPixel:
        """In place of ``conv``, along the ``rank`` largest singular directions of its matrix; as ``from_linear``.

        Raises:
            ValueError: a layer that is no such matrix (padding, dilation, groups), or as ``from_linear``.
        """
        if not isinstance(conv, nn.ConvTranspose2d):
            raise ValueError(f"{type(conv).__name__}: only an nn.ConvTranspose2d is meant here")
        plain = (conv.padding, conv.output_padding, conv.dilation, conv.groups) == ((0, 0), (0, 0), (1, 1), 1)
        if not plain:
            raise ValueError(
                "a transposed convolution with padding, dilation or groups is no matrix of one pixel; "
                "choose a layer without"
            )
        weight = effective_weight(conv)
        shape = (conv.out_channels, int(conv.kernel_size[0]), int(conv.kernel_size[1]))
        new = cls(conv.in_channels, shape, rank, bias=conv.bias is not None)
        new.to(weight.device, weight.dtype).train(conv.training)
        new.fit(weight.flatten(1).mT, scale)
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
        return new

    @torch.no_grad()
    def baked(self) -> nn.Module:
        """The plain transposed convolution that does the same to a single pixel."""
        channels, *kernel = self.shape
        new = nn.ConvTranspose2d(self.in_features, channels, tuple(kernel), bias=self.bias is not None)  # pyright: ignore
        new.to(self.left.device, self.left.dtype).train(self.training)
        new.weight.copy_(self.weight.mT.unflatten(1, self.shape))
        if self.bias is not None and new.bias is not None:
            new.bias.copy_(self.bias)
        return new

    def forward(self, input: Tensor) -> Tensor:
        """(n, in, 1, 1) -> (n, out, kh, kw).

        Raises:
            ValueError: a map of more than one pixel, or not of real floating-point numbers.
        """
        check_numbers(self, input)
        if input.shape[1:] != (self.in_features, 1, 1):
            raise ValueError(
                f"the input is {tuple(input.shape)}: a Householder projector in place of a transposed convolution "
                f"takes (n, {self.in_features}, 1, 1)"
            )
        with torch.autocast(input.device.type, enabled=False):
            out = self.product(input.flatten(1)).unflatten(1, self.shape)
            if self.bias is not None:
                out = out + at_least_float32(self.bias)[:, None, None]
            return out.to(input.dtype)
