"""A baseline in the style of R3GAN (Huang et al. 2024): a plain modern convnet with no normalization layer.

Written from the paper's description: inverted-bottleneck residual blocks with grouped convolutions, leaky ReLU,
bilinear resampling, a learned basis at 4x4, and Fix-up initialization instead of normalization. The widths and details
are our own, so its scores are not those of R3GAN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

BOTTOM = 4  # side of the smallest map
GROUP = 16  # channels per group of the 3x3 convolution
EXPANSION = 2  # width inside a block
BLOCKS = 2  # residual blocks at each size
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))


class Block(nn.Module):
    """A block x + conv1x1(act(grouped conv3x3(act(conv1x1 x)))); the last convolution starts at zero (Fix-up)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        wide = channels * EXPANSION
        # Fix-up: depth^(-1/(2m-2)) for the first convolutions, for m = 3 per branch of a net with `depth` branches
        gain = GAIN * depth**-0.25
        self.conv1 = _conv(channels, wide, 1, gain)
        self.conv2 = _conv(wide, wide, 3, gain, groups=max(1, wide // GROUP))
        self.conv3 = _conv(wide, channels, 1, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, h, w)."""
        h = functional.leaky_relu(self.conv1(x), SLOPE)
        return x + self.conv3(functional.leaky_relu(self.conv2(h), SLOPE))


@GENERATORS.register("r3gan")
class R3GANGenerator(Generator):
    """A generator: a 4x4 basis modulated by z, two blocks and a bilinear doubling per size, conv1x1 to the image.

    Args:
        channels: width at every size; the inner width, 2 * channels, should be a multiple of 16.
        num_classes: > 0 appends a learned vector per class to z.

    Raises:
        UserError: the resolution is not a power of two of at least 16.

    Source: in the style of Huang et al. 2024, arXiv:2501.05441.

    Example:
        >>> from orthogan.models import R3GANGenerator
        >>> generator = R3GANGenerator(resolution=32, image_channels=3, channels=16, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int, latent_dim: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        sizes = _sizes(resolution, channels)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.linear = nn.Linear(latent_dim, channels, bias=False)
        nn.init.normal_(self.linear.weight, 0.0, GAIN / math.sqrt(latent_dim))
        self.embedding = ClassEmbedding(num_classes, channels) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, 1 / math.sqrt(2))
        self.basis = nn.Parameter(torch.randn(channels, BOTTOM, BOTTOM))
        depth = len(sizes) * BLOCKS
        self.stages = nn.ModuleList(nn.Sequential(*(Block(channels, depth) for _ in range(BLOCKS))) for _ in sizes)
        self.image = _conv(channels, image_channels, 1, 1.0)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,); near [-1, 1] but unbounded, as in the paper."""
        self.check(z, y)
        code = self.linear(z)
        if self.embedding is not None:
            code = code + self.embedding(y)
        x = self.basis * code[:, :, None, None]
        for index, stage in enumerate(self.stages):
            if index:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = stage(x)
        return self.image(x)


@DISCRIMINATORS.register("r3gan")
class R3GANDiscriminator(Discriminator):
    """A discriminator: conv1x1 from the image, two blocks and a bilinear halving per size, a 4x4 basis, linear.

    With ``num_classes`` the features are projected on a learned vector per class.

    Raises:
        UserError: the resolution is not a power of two of at least 16.

    Source: in the style of Huang et al. 2024, arXiv:2501.05441.

    Example:
        >>> import torch
        >>> from orthogan.models import R3GANDiscriminator
        >>> critic = R3GANDiscriminator(resolution=32, image_channels=3, channels=16)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        sizes = _sizes(resolution, channels)
        self.num_classes = num_classes
        depth = len(sizes) * BLOCKS
        self.image = _conv(image_channels, channels, 1, 1.0)
        self.stages = nn.ModuleList(nn.Sequential(*(Block(channels, depth) for _ in range(BLOCKS))) for _ in sizes)
        self.basis = nn.Conv2d(channels, channels, BOTTOM, groups=channels, bias=False)
        nn.init.normal_(self.basis.weight, 0.0, 1 / BOTTOM)
        self.linear = nn.Linear(channels, num_classes or 1, bias=False)
        nn.init.normal_(self.linear.weight, 0.0, 1 / math.sqrt(channels))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        x = self.image(x)
        for index, stage in enumerate(self.stages):
            if index:
                x = functional.avg_pool2d(x, 2)  # equals bilinear interpolation by 1/2
            x = stage(x)
        logits = self.linear(self.basis(x).flatten(1))
        if not self.num_classes:
            return logits.squeeze(1)
        if y is None:
            raise UserError("this discriminator is conditional: it needs the labels of the images")
        if y.is_floating_point():
            return (logits * y.to(logits.dtype)).sum(1)
        return logits.gather(1, y[:, None]).squeeze(1)


def _sizes(resolution: int, channels: int) -> list[int]:
    if resolution < 16 or resolution & (resolution - 1):
        raise unsupported_resolution("r3gan", resolution, ("16", "32", "64", "128", "further powers of two"))
    wide = channels * EXPANSION
    if wide % max(1, wide // GROUP):
        raise ValueError(
            f"channels is {channels}: must be a multiple of {GROUP // 2}, because r3gan uses groups of equal size"
        )
    return [BOTTOM << i for i in range(int(math.log2(resolution // BOTTOM)) + 1)]


def _conv(inputs: int, outputs: int, kernel: int, gain: float, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(inputs // groups * kernel**2))
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer
