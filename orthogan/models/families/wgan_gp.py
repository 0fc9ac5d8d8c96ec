"""The WGAN-GP ResNets for CIFAR (Gulrajani et al. 2017): SN-GAN's blocks, a mean instead of a sum, no norm in D."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import Norm
from orthogan.models.families.resnet_blocks import (
    DownBlock,
    UpBlock,
    conv,
    glorot,
    linear,
    project,
    square,
    unsupported_resolution,
)
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

RESOLUTIONS = (32, 64, 128)
BOTTOM = 4


@GENERATORS.register("wgan-gp")
class WGANGPGenerator(Generator):
    """A generator: linear, blocks of equal width (128 in the paper) that double the size, norm, ReLU, conv3x3, tanh.

    Raises:
        UserError: the resolution is not 32, 64 or 128.

    Source: Gulrajani et al. 2017, arXiv:1704.00028.

    Example:
        >>> from orthogan.models import WGANGPGenerator
        >>> generator = WGANGPGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int, latent_dim: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        if resolution not in RESOLUTIONS:
            raise unsupported_resolution("wgan-gp", resolution, RESOLUTIONS)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.width = channels
        self.linear = linear(latent_dim, channels * BOTTOM**2)
        doublings = int(math.log2(resolution // BOTTOM))
        self.blocks = nn.ModuleList(UpBlock(channels, channels, num_classes) for _ in range(doublings))
        self.norm = Norm(channels, 0)
        self.conv = conv(channels, image_channels, 3)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim) under labels (n,)."""
        self.check(z, y)
        x = square(self.linear(z), self.width, BOTTOM)
        for block in self.blocks:
            x = block(x, y)
        return self.conv(self.norm(x, None)).tanh()


@DISCRIMINATORS.register("wgan-gp")
class WGANGPDiscriminator(Discriminator):
    """A discriminator: blocks that halve the size down to 8 px, two that keep it, ReLU, MEAN over the map, linear.

    The published conditional variant adds an auxiliary classifier; with ``num_classes`` this discriminator uses the
    class projection instead.

    Raises:
        UserError: the resolution is not 32, 64 or 128.

    Source: Gulrajani et al. 2017, arXiv:1704.00028.

    Example:
        >>> import torch
        >>> from orthogan.models import WGANGPDiscriminator
        >>> critic = WGANGPDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        if resolution not in RESOLUTIONS:
            raise unsupported_resolution("wgan-gp", resolution, RESOLUTIONS)
        self.num_classes = num_classes
        halvings = int(math.log2(resolution // 8))
        blocks = [DownBlock(image_channels, channels, down=True, first=True)]
        blocks += [DownBlock(channels, channels, down=True) for _ in range(halvings - 1)]
        blocks += [DownBlock(channels, channels, down=False) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.linear = linear(channels, 1)
        self.embedding = glorot(ClassEmbedding(num_classes, channels)) if num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return critic values (n,) of images (n, c, h, w) under labels (n,)."""
        features = functional.relu(self.blocks(x)).mean((2, 3))
        values = self.linear(features).squeeze(1)
        return values if self.embedding is None else values + project(features, self.embedding, y)
