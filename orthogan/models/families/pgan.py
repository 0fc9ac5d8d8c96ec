"""The progressive GAN (Karras et al. 2018), as it is after, or during, the growth to its largest size.

Written from the paper. The details on which it is silent are those of pytorch_GAN_zoo, whose outputs it equals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.linalg.precision import at_least_float32
from orthogan.models.families.modulation import EqualConv2d, EqualLinear, group_size, pixel_norm
from orthogan.models.families.resnet_blocks import project, square, unsupported_resolution
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

Layer = TypeVar("Layer", EqualLinear, EqualConv2d)
RESOLUTIONS = tuple(8 << i for i in range(8))
BOTTOM = 4  # side of the smallest map
WIDEST = 512
GROUP = 4  # images over which the discriminator takes the standard deviation


@GENERATORS.register("pgan")
class PGANGenerator(Generator):
    """A generator: pixel norm of z, linear, conv3x3 at 4 px, then per size: nearest x2, two conv3x3; conv1x1 to RGB.

    Leaky ReLU and pixel norm follow each layer but the last. All layers have an equalized learning rate. z is
    normalized, so without classes its length, and thus truncation, change nothing.

    Args:
        channels: width at full size, doubled at each halving up to 512.
        num_classes: > 0 appends a one-hot code of the label to z.
        widths: widths of the maps instead, from 4 px up.
        attributes: number of values of each attribute, if a label stands for one value of each: their product is
            ``num_classes``, the last attribute varies fastest, and z gets a one-hot code per attribute.
        alpha: share of the image of half the size, from a second RGB layer, in the output; 0 after the growth.
        slope: of the leaky ReLU.
        tanh: whether the output passes through tanh.

    Raises:
        UserError: the resolution is not a power of two from 8 to 1024.
        ValueError: ``widths`` or ``attributes`` do not fit the other arguments.

    Source: Karras et al. 2018, arXiv:1710.10196.

    Example:
        >>> from orthogan.models import PGANGenerator
        >>> generator = PGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        widths: Sequence[int] = (),
        attributes: Sequence[int] = (),
        alpha: float = 0.0,
        slope: float = 0.2,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        widths = widths_of(resolution, channels, widths)
        sizes = list(attributes) or [num_classes] * bool(num_classes)
        if math.prod(sizes) != max(num_classes, 1):
            raise ValueError(f"attributes is {sizes}: their product must be the number of classes, {num_classes}")
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.alpha, self.slope, self.tanh = alpha, slope, tanh
        self.sizes = sizes
        self.linear = _he(EqualLinear(latent_dim + sum(sizes), widths[0] * BOTTOM**2))
        pairs = [(widths[0], widths[0])]
        for a, b in itertools.pairwise(widths):
            pairs += [(a, b), (b, b)]
        self.convs = nn.ModuleList(_he(EqualConv2d(a, b, 3)) for a, b in pairs)
        self.half_image = _he(EqualConv2d(widths[-2], image_channels, 1)) if alpha else None
        self.image = _he(EqualConv2d(widths[-1], image_channels, 1))

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the normalized latent."""
        if self.num_classes:
            raise AttributeError("the first layer of a conditional pgan takes the label too")
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,); near [-1, 1], but unbounded without tanh."""
        self.check(z, y)
        code = z if y is None else torch.cat([z, *(hot.to(z.dtype) for hot in one_hot(y, self.sizes))], 1)
        x = functional.leaky_relu(self.linear(_normalized(code)), self.slope)
        x = _normalized(square(x, x.shape[1] // BOTTOM**2, BOTTOM))
        half = None
        for i, conv in enumerate(self.convs):
            if i % 2:
                if self.half_image is not None and i == len(self.convs) - 2:
                    half = functional.interpolate(self.half_image(x), scale_factor=2)
                x = functional.interpolate(x, scale_factor=2)
            x = _normalized(functional.leaky_relu(conv(x), self.slope))
        image = self.image(x)
        if half is not None:
            image = self.alpha * half + (1 - self.alpha) * image
        return image.tanh() if self.tanh else image


@DISCRIMINATORS.register("pgan")
class PGANDiscriminator(Discriminator):
    """A discriminator: conv1x1, two conv3x3 and a mean per halving, standard deviation, conv3x3, two linear layers.

    With ``num_classes`` the features are projected on a learned vector per class. An image affects the others of its
    group. In eval mode the groups are those of the authors: four consecutive images, or the whole batch if it has
    fewer, or is no multiple of four. In training they are the consecutive images of ``group_size``, because the batch
    is reals and then as many fakes here.

    Args:
        channels, widths, alpha, slope: as for the generator, also from 4 px up.
        deviation: whether the last map gets a channel with the standard deviation over a group of images.

    Raises:
        UserError: the resolution is not a power of two from 8 to 1024.
        ValueError: ``widths`` has another length than there are sizes.

    Source: Karras et al. 2018, arXiv:1710.10196.

    Example:
        >>> import torch
        >>> from orthogan.models import PGANDiscriminator
        >>> critic = PGANDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        num_classes: int = 0,
        widths: Sequence[int] = (),
        alpha: float = 0.0,
        slope: float = 0.2,
        deviation: bool = True,
    ) -> None:
        super().__init__()
        widths = widths_of(resolution, channels, widths)[::-1]
        top = widths[-1]
        self.num_classes, self.alpha, self.slope, self.deviation = num_classes, alpha, slope, deviation
        self.image = _he(EqualConv2d(image_channels, widths[0], 1))
        self.half_image = _he(EqualConv2d(image_channels, widths[1], 1)) if alpha else None
        pairs = [pair for a, b in itertools.pairwise(widths) for pair in ((a, a), (a, b))]
        self.convs = nn.ModuleList(_he(EqualConv2d(a, b, 3)) for a, b in pairs)
        self.conv = _he(EqualConv2d(top + deviation, top, 3))
        self.hidden = _he(EqualLinear(top * BOTTOM**2, top))
        self.linear = _he(EqualLinear(top, 1))
        self.embedding = ClassEmbedding(num_classes, top) if num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return critic values (n,) of images (n, c, h, w) under labels (n,)."""
        h = self._active(self.image, x)
        for i, conv in enumerate(self.convs):
            h = self._active(conv, h)
            if i % 2:
                h = functional.avg_pool2d(h, 2)
            if i == 1 and self.half_image is not None:
                half = self._active(self.half_image, functional.avg_pool2d(x, 2))
                h = self.alpha * half + (1 - self.alpha) * h
        h = self._active(self.conv, self._with_deviation(h) if self.deviation else h)
        h = self._active(self.hidden, h.flatten(1))
        values = self.linear(h).squeeze(1)
        if self.embedding is None:
            return values
        return values + project(h, self.embedding, y) / math.sqrt(h.shape[1])

    def _active(self, layer: nn.Module, x: Tensor) -> Tensor:
        return functional.leaky_relu(layer(x), self.slope)

    def _with_deviation(self, x: Tensor) -> Tensor:
        """Append the mean unbiased standard deviation over a group, 0 for one image: (n, c, h, w) -> (n, c+1, h, w)."""
        n = len(x)
        size = group_size(n) if self.training else GROUP if n % GROUP == 0 else n
        if size == 1:
            return functional.pad(x, (0, 0, 0, 0, 0, 1))
        with torch.autocast(x.device.type, enabled=False):
            groups = at_least_float32(x).unflatten(0, (-1, size))
            spread = torch.sqrt(groups.var(1, keepdim=True) + 1e-8).mean((2, 3, 4), keepdim=True)
            channel = spread.expand(-1, size, 1, *x.shape[2:]).flatten(0, 1)
        return torch.cat([x, channel.to(x.dtype)], 1)


def _normalized(x: Tensor) -> Tensor:
    """Return the pixel norm of (n, c, ...), computed in at least float32."""
    return pixel_norm(at_least_float32(x)).to(x.dtype)


def _he(layer: Layer) -> Layer:
    """Give the layer the gain sqrt(2 / fan_in) of the paper (sec. 4.1) and return it."""
    layer.gain *= math.sqrt(2)
    return layer


def one_hot(y: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the one-hot code (n, size) of each attribute of the labels y (n,); the last attribute varies fastest.

    Labels that are vectors (n, k) are their own code.
    """
    if y.is_floating_point():
        return [y]
    found: list[Tensor] = []
    for size in reversed(sizes[1:]):
        found.append(functional.one_hot(y % size, size))
        y = y // size
    return [functional.one_hot(y, sizes[0]), *found[::-1]]


def widths_of(resolution: int, channels: int, widths: Sequence[int] = ()) -> list[int]:
    """Return the channels of the maps, from 4 px to full size."""
    if resolution not in RESOLUTIONS:
        raise unsupported_resolution("pgan", resolution, RESOLUTIONS)
    depth = RESOLUTIONS.index(resolution) + 1
    if widths and len(widths) != depth + 1:
        raise ValueError(f"widths is {list(widths)}: it must have {depth + 1} entries at {resolution} pixels")
    # never narrower than requested, if that is above the usual limit
    return list(widths) or [min(channels << (depth - i), max(WIDEST, channels)) for i in range(depth + 1)]
