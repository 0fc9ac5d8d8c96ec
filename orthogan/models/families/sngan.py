"""The SN-GAN ResNets (Miyato et al. 2018; Miyato & Koyama 2018), layer by layer as in the authors' Chainer code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers import CovariancePooling
from orthogan.layers.batch_norm import Norm
from orthogan.models.families.resnet_blocks import (
    DownBlock,
    UpBlock,
    conv,
    glorot,
    linear,
    project,
)
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator
from orthogan.size import UnsupportedSize, as_resolution, sides, size_in_words


@dataclass(frozen=True)
class Plan:
    """Widths of the layers, in multiples of the base ``channels``; every block of G doubles the size."""

    up: tuple[int, ...]  # G: width after the linear layer, then after each block
    down: tuple[int, ...]  # D: width after each block
    halvings: int  # D: the first N blocks halve the size
    bias: bool  # D: whether the last linear layer has a bias


PLANS = {
    32: Plan((1, 1, 1, 1), (1, 1, 1, 1), 2, bias=False),
    48: Plan((8, 4, 2, 1), (1, 2, 4, 8, 16), 4, bias=True),
    64: Plan((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), 5, bias=True),
    128: Plan((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5, bias=True),
}


def _plan(resolution: Any) -> Plan:
    """Return the plan of a square, or the largest one that fits a rectangle. Raises ``UserError``."""
    shape = sides(resolution)
    if as_resolution(*shape) in PLANS:
        return PLANS[shape[0]]
    for size, plan in sorted(PLANS.items(), reverse=True):
        step = 1 << max(len(plan.up) - 1, plan.halvings)
        if shape[0] != shape[1] and size <= min(shape) and not any(side % step for side in shape):
            return plan
    raise UnsupportedSize(
        f"data.resolution is {size_in_words(resolution)}: sngan supports {', '.join(map(str, PLANS))} pixels, and "
        "rectangles whose sides are multiples of 8 from 32 on"
    )


@GENERATORS.register("sngan")
class SNGANGenerator(Generator):
    """A generator: linear, residual blocks that double the size, norm, ReLU, conv3x3, tanh.

    Args:
        resolution: 32, 48, 64 or 128, or (height, width) in multiples of 8 from 32 on. A rectangle has the layers of
            the largest of these sizes that is not above its shorter side and whose map can be halved as often: 128 and
            64 need multiples of 32, 48 needs multiples of 16.
        channels: base width; 256 in the paper at 32 px, 64 at the other sizes.
        num_classes: > 0 gives every norm except the last a gain and bias per class.
        upsample: how a block doubles the size; "nearest" in the paper.

    Raises:
        UserError: another resolution.

    Source: Miyato et al. 2018, arXiv:1802.05957.

    Example:
        >>> import torch
        >>> from orthogan.models import SNGANGenerator
        >>> generator = SNGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16, num_classes=10)
        >>> generator(generator.sample_latent(2, seed=0), torch.tensor([3, 5])).shape
        torch.Size([2, 3, 32, 32])
    """

    rectangles = True

    def __init__(
        self,
        *,
        resolution: Any,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        upsample: Literal["nearest", "bilinear"] = "nearest",
    ) -> None:
        super().__init__()
        plan = _plan(resolution)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.bottom = tuple(side >> len(plan.up) - 1 for side in sides(resolution))
        widths = [channels * factor for factor in plan.up]
        self.width = widths[0]
        self.linear = linear(latent_dim, widths[0] * math.prod(self.bottom))
        self.blocks = nn.ModuleList(UpBlock(a, b, num_classes, upsample) for a, b in itertools.pairwise(widths))
        self.norm = Norm(widths[-1], 0)
        self.conv = conv(widths[-1], image_channels, 3)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim) under labels (n,)."""
        self.check(z, y)
        x = self.linear(z).unflatten(1, (self.width, *self.bottom))
        for block in self.blocks:
            x = block(x, y)
        return self.conv(self.norm(x, None)).tanh()


@DISCRIMINATORS.register("sngan")
class SNGANDiscriminator(Discriminator):
    """A discriminator: residual blocks, ReLU, SUM over the map, linear; plus a class projection if there are classes.

    Args:
        resolution: as for the generator.
        channels: base width; 128 in the paper at 32 px, 64 at the other sizes.
        bias: whether the last linear layer has a bias; by default as in the authors' code: not at 32 px.
        relu_shortcut: whether the shortcut of a block begins after its first ReLU. The authors' begins before it; in
            PyTorch code with an in-place ReLU, such as mimicry and StudioGAN, it begins after it.
        pooling: called with the number of channels, returns the module that replaces the SUM; None keeps the SUM.

    Raises:
        UserError: another resolution.

    Source: Miyato et al. 2018, arXiv:1802.05957; the class projection: Miyato & Koyama 2018, arXiv:1802.05637.

    Example:
        >>> import torch
        >>> from orthogan.models import SNGANDiscriminator
        >>> critic = SNGANDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    rectangles = True

    def __init__(
        self,
        *,
        resolution: Any,
        image_channels: int,
        channels: int,
        num_classes: int = 0,
        bias: bool | None = None,
        relu_shortcut: bool = False,
        pooling: Callable[[int], CovariancePooling] | None = None,
    ) -> None:
        super().__init__()
        plan = _plan(resolution)
        self.num_classes = num_classes
        widths = [image_channels, *(channels * factor for factor in plan.down)]
        self.blocks = nn.Sequential(
            *(
                DownBlock(a, b, down=i < plan.halvings, first=i == 0, relu_shortcut=relu_shortcut)
                for i, (a, b) in enumerate(itertools.pairwise(widths))
            )
        )
        self.pooling = None if pooling is None else pooling(widths[-1])
        features = widths[-1] if self.pooling is None else self.pooling.features
        self.linear = linear(features, 1, bias=plan.bias if bias is None else bias)
        self.embedding = glorot(ClassEmbedding(num_classes, features)) if num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        last = functional.relu(self.blocks(x))
        features = last.sum((2, 3)) if self.pooling is None else self.pooling(last)
        logits = self.linear(features).squeeze(1)
        return logits if self.embedding is None else logits + project(features, self.embedding, y)
