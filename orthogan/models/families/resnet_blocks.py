"""The residual blocks that SN-GAN and WGAN-GP share, and their initialization."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers.batch_norm import Norm
from orthogan.layers.resampled import conv_pool, upsample_conv
from orthogan.size import UnsupportedSize, sides, size_in_words

RELU_GAIN = math.sqrt(2)
Weighted = TypeVar("Weighted", nn.Conv2d, nn.Linear, nn.Embedding)


def conv(inputs: int, outputs: int, kernel: int, *, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    """Return a size-preserving convolution, Glorot-uniform with ``gain``, zero bias."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    return glorot(layer, gain)


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer, Glorot-uniform, zero bias."""
    return glorot(nn.Linear(inputs, outputs, bias=bias))


def glorot(layer: Weighted, gain: float = 1.0) -> Weighted:
    """Set a Glorot-uniform weight and zero bias, in place."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class UpBlock(nn.Module):
    """A block: norm, ReLU, x2, conv3x3, norm, ReLU, conv3x3; shortcut: x2, conv1x1; x2: nearest or bilinear."""

    def __init__(self, inputs: int, outputs: int, num_classes: int, upsample: str = "nearest") -> None:
        super().__init__()
        self.upsample = upsample
        self.norm1 = Norm(inputs, num_classes)
        self.conv1 = conv(inputs, outputs, 3, gain=RELU_GAIN)
        self.norm2 = Norm(outputs, num_classes)
        self.conv2 = conv(outputs, outputs, 3, gain=RELU_GAIN)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, 2h, 2w)."""
        h = self.norm1(x, labels)
        if self.upsample == "nearest":
            h = upsample_conv(self.conv1, h)
        else:
            h = self.conv1(functional.interpolate(h, scale_factor=2, mode=self.upsample))
        h = self.conv2(self.norm2(h, labels))
        # a 1x1 convolution and upsampling commute; this order needs a quarter of the work
        return h + functional.interpolate(self.shortcut(x), scale_factor=2, mode=self.upsample)


class DownBlock(nn.Module):
    """A block: ReLU, conv3x3, ReLU, conv3x3, mean over 2x2; shortcut: conv1x1 and the same mean.

    ``first`` omits the first ReLU (its input is an image). Without ``down`` the size is kept, and the shortcut is the
    identity if the widths are equal. ``relu_shortcut``: the shortcut also begins after the first ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, *, down: bool, first: bool = False, relu_shortcut: bool = False
    ) -> None:
        super().__init__()
        self.relu_shortcut = relu_shortcut
        hidden = outputs if first else inputs
        self.conv1 = conv(inputs, hidden, 3, gain=RELU_GAIN)
        self.conv2 = conv(hidden, outputs, 3, gain=RELU_GAIN)
        self.shortcut = conv(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()
        self.down = down
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h/2, w/2), or the same size without ``down``."""
        h = x if self.first else functional.relu(x)
        if self.relu_shortcut:
            x = h
        h = functional.relu(self.conv1(h))
        if not self.down:
            return self.conv2(h) + self.shortcut(x)
        # the mean and a 1x1 convolution commute too
        return conv_pool(self.conv2, h) + self.shortcut(functional.avg_pool2d(x, 2))


def project(features: Tensor, embedding: nn.Embedding, labels: Tensor | None) -> Tensor:
    """Return <embedding(y), h> per image (Miyato & Koyama 2018, eq. 3): (n, d) -> (n,)."""
    if labels is None:
        raise UserError("this discriminator is conditional: it needs the labels of the images")
    return (embedding(labels) * features).sum(1)


def unsupported_resolution(family: str, resolution: Any, supported: object) -> UnsupportedSize:
    """Return the error for a resolution that a family does not support."""
    sizes = ", ".join(map(str, supported))  # pyright: ignore[reportArgumentType]
    return UnsupportedSize(f"data.resolution is {size_in_words(resolution)}: {family} supports {sizes} pixels")


def square(z: Tensor, channels: int, side: int) -> Tensor:
    """Reshape (n, channels*side*side) to (n, channels, side, side)."""
    return torch.reshape(z, (z.shape[0], channels, side, side))


def halvings(family: str, resolution: Any, smallest: int) -> int:
    """Return how often both sides of images can be halved until one has fewer than twice ``smallest`` pixels.

    Raises:
        UserError: a side is not a multiple of 4, or is below 8 pixels.
    """
    size = sides(resolution)
    if any(side % 4 or side < 8 for side in size):
        raise UnsupportedSize(
            f"data.resolution is {size_in_words(resolution)}: {family} supports multiples of 4 pixels from 8 on"
        )
    count = 0
    while all(side % 2 == 0 and side // 2 >= smallest for side in size):
        size, count = (size[0] // 2, size[1] // 2), count + 1
    return count
