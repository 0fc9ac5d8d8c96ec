"""SN-DCGAN: the "standard CNN" of Miyato et al. 2018, tables 3 and 4 of their appendix."""

from __future__ import annotations

import itertools
import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import Norm
from orthogan.layers.transposed import ConvTranspose2d
from orthogan.models.families.resnet_blocks import halvings, project
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator
from orthogan.size import sides

SMALLEST, LEAST = 4, 3  # pixels of a side of the smallest map at least; halvings of the paper
SLOPE = 0.1  # of the leaky ReLU, as in the paper
STD = 0.02


@GENERATORS.register("dcgan")
class DCGANGenerator(Generator):
    """A generator: linear to a map of 1/8 of the size, three transposed 4x4 convolutions of stride 2, conv3x3, tanh.

    Sizes that cannot be halved three times have fewer stages, and sizes above 128 more.

    Args:
        resolution: any multiple of 4, or (height, width); multiples of 8 work best.
        channels: width of the first map, halved by each stage; 512 in the paper.

    Raises:
        UserError: a side of the images is not a multiple of 4 pixels.
        ValueError: ``channels`` cannot be halved once per stage.

    Source: Miyato et al. 2018, tables 3 and 4, arXiv:1802.05957.

    Example:
        >>> from orthogan.models import DCGANGenerator
        >>> generator = DCGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    rectangles = True

    def __init__(
        self, *, resolution: Any, image_channels: int, channels: int, latent_dim: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        stages = _stages(resolution)
        if channels % (1 << stages):
            raise ValueError(
                f"channels is {channels}: must be a multiple of {1 << stages}, because a dcgan generator halves it "
                f"{'three' if stages == 3 else stages} times"
            )
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.width = channels
        self.bottom = tuple(side >> stages for side in sides(resolution))
        widths = [channels >> i for i in range(stages + 1)]
        self.linear = nn.Linear(latent_dim, channels * math.prod(self.bottom))
        self.ups = nn.ModuleList(ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(Norm(width, num_classes) for width in widths)
        self.conv = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        _initialise(self)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim) under labels (n,)."""
        self.check(z, y)
        x = self.norms[0](self.linear(z).unflatten(1, (self.width, *self.bottom)), y)
        for up, norm in zip(self.ups, list(self.norms)[1:], strict=True):
            x = norm(up(x), y)
        return self.conv(x).tanh()


@DISCRIMINATORS.register("dcgan")
class DCGANDiscriminator(Discriminator):
    """A discriminator: conv3x3 and conv4x4 of stride 2, three times, conv3x3, linear; leaky ReLU of slope 0.1, no norm.

    Args:
        resolution: any multiple of 4, or (height, width), as for the generator.
        channels: base width; 64 in the paper (64, 64, 128, 128, 256, 256, 512).
        num_classes: > 0 adds a class projection of the last map's sum (not in the paper).

    Raises:
        UserError: a side of the images is not a multiple of 4 pixels.

    Source: Miyato et al. 2018, tables 3 and 4, arXiv:1802.05957.

    Example:
        >>> import torch
        >>> from orthogan.models import DCGANDiscriminator
        >>> critic = DCGANDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    rectangles = True

    def __init__(self, *, resolution: Any, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        stages = _stages(resolution)
        self.num_classes = num_classes
        layers = [nn.Conv2d(image_channels, channels, 3, padding=1)]
        for stage in range(stages):
            width = channels << stage
            if stage:
                layers.append(nn.Conv2d(width, width, 3, padding=1))
            layers.append(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1))
        top = channels << stages
        layers.append(nn.Conv2d(top, top, 3, padding=1))
        self.convs = nn.ModuleList(layers)
        self.linear = nn.Linear(top * math.prod(side >> stages for side in sides(resolution)), 1)
        self.embedding = ClassEmbedding(num_classes, top) if num_classes else None
        _initialise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), SLOPE)
        logits = self.linear(x.flatten(1)).squeeze(1)
        return logits if self.embedding is None else logits + project(x.sum((2, 3)), self.embedding, y)


def _stages(resolution: Any) -> int:
    """Return the number of halvings: three as in the paper, fewer if a side is too small or odd, more above 128 px."""
    most = halvings("dcgan", resolution, SMALLEST)
    return min(most, max(LEAST, math.ceil(math.log2(max(sides(resolution)) / 16))))


def _initialise(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
