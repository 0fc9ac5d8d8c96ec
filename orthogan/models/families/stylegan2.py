"""A compact GAN in the style of StyleGAN2 (Karras et al. 2019, 2020), written from the papers in plain torch.

z -> mapping -> w; an affine layer per convolution turns w into the scales of its input channels. Skip generator,
residual discriminator. Widths and details are our own, so its scores are not those of StyleGAN2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.layers.householder_projector import HouseholderProjector
from orthogan.linalg.precision import at_least_float32
from orthogan.models.families.modulation import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    Style,
    StyledConv,
    activate,
    double,
    latent_seeds,
    pixel_norm,
    with_deviation,
)
from orthogan.models.families.resnet_blocks import halvings, project
from orthogan.models.families.style_based import StyleBased
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator
from orthogan.size import sides
from orthogan.weights.selection import choose

BOTTOM = 4  # smallest side of the smallest map
WIDEST = 512
MAPPING_RATE = 0.01  # learning rate of the mapping network relative to the others
UP = "blocks.*.up.affine"


class Mapping(nn.Module):
    """The mapping network: z (n, latent_dim), labels (n,) -> w (n, w_dim). Pixel norm, linear layers, leaky ReLU.

    Each class has a learned vector, of unit mean square, which is added to the output of the first linear layer.
    """

    def __init__(self, latent_dim: int, w_dim: int, num_classes: int, depth: int, equalized: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EqualLinear(latent_dim if i == 0 else w_dim, w_dim, lr_mul=MAPPING_RATE, equalized=equalized)
            for i in range(depth)
        )
        self.embedding = ClassEmbedding(num_classes, w_dim) if num_classes else None

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Map z to w in at least float32, also inside autocast."""
        with torch.autocast(z.device.type, enabled=False):
            h = pixel_norm(at_least_float32(z))
            for i, layer in enumerate(self.layers):
                h = layer(h)
                if i == 0 and self.embedding is not None:
                    h = (h + pixel_norm(at_least_float32(self.embedding(y)))) * math.sqrt(0.5)
                h = activate(h)
            return h


class Block(nn.Module):
    """A block that doubles maps and image: styled convolutions, and a 1x1 convolution that is added to the image.

    The block of ``index`` 0 keeps the size and has one styled convolution. A block takes rows of ws from ``row`` on;
    the last of them is also the first of the next block.
    """

    def __init__(
        self, inputs: int, outputs: int, image_channels: int, w_dim: int, *, index: int, noise: bool, equalized: bool
    ) -> None:
        super().__init__()
        self.row = max(0, 2 * index - 1)
        self.up = (
            StyledConv(inputs, outputs, w_dim, layer=2 * index - 1, up=True, noise=noise, equalized=equalized)
            if index
            else None
        )
        self.conv = StyledConv(outputs, outputs, w_dim, layer=2 * index, noise=noise, equalized=equalized)
        self.to_rgb = ModulatedConv2d(outputs, image_channels, 1, w_dim, demodulate=False, equalized=equalized)

    def parts(self) -> list[tuple[str, ModulatedConv2d]]:
        """Return (name, layer) in the order in which the layers take rows of ws."""
        rest: list[tuple[str, ModulatedConv2d]] = [("conv", self.conv), ("to_rgb", self.to_rgb)]
        return rest if self.up is None else [("up", self.up), *rest]

    def forward(
        self, x: Tensor, image: Tensor | None, takes: Sequence[Tensor | Style], seeds: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Apply to maps (n, in, s, s), image (n, c, s, s), a w or style per layer of ``parts``, seeds (n,) or None."""
        if self.up is not None:
            x = self.up(x, takes[0], seeds)
        x = self.conv(x, takes[-2], seeds)
        rgb = at_least_float32(self.to_rgb(x, takes[-1]))
        return x, rgb if image is None else double(image) + rgb


@GENERATORS.register("stylegan2")
class StyleGAN2Generator(StyleBased):
    """A generator z -> ``mapping`` -> w -> ``synthesis`` -> image, with a learned 4x4 constant and a block per size.

    For a size that is no power of 2, the constant has the size of the images after as many halvings as are possible.

    The noise is deterministic: in training, the noise of an image is a hash of its latent; in eval mode all images
    share one fixed noise, so that an image is a smooth function of its latent.

    Args:
        resolution: any multiple of 4, or (height, width); sides that can be halved often work best, such as (64, 96).
        channels: width at full size, doubled at each halving up to 512.
        num_classes: > 0 adds a learned vector per class in the mapping network.
        w_dim: dimension of w; ``latent_dim`` by default.
        mapping_layers: 8 in the paper; 2 often suffices for small data (Karras et al. 2020b).
        noise: whether the layers add noise.
        equalized: learned weights times fixed gains, as published; False: plain layers with the same start, for
            penalties and gradient rules.
        style_rank: > 0 makes the styles of the up-sampling convolutions Householder projectors of that rank
            (``project_styles``), so that such a network can be built from a config.

    Raises:
        UserError: a side of the images is not a multiple of 4 pixels.
        ValueError: there is no mapping layer, or style_rank does not fit.

    Source: Karras et al. 2020, arXiv:1912.04958.

    Example:
        >>> from orthogan.models import StyleGAN2Generator
        >>> generator = StyleGAN2Generator(resolution=32, image_channels=3, channels=4, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
        >>> generator.spaces
        ('z', 'w', 'w+', 's')
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
        w_dim: int | None = None,
        mapping_layers: int = 8,
        noise: bool = True,
        equalized: bool = True,
        style_rank: int = 0,
    ) -> None:
        super().__init__()
        widths = _widths(resolution, channels)
        if mapping_layers < 1:
            raise ValueError(f"mapping_layers is {mapping_layers}: must be at least 1")
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.w_dim = w_dim or latent_dim
        self.mapper = Mapping(latent_dim, self.w_dim, num_classes, mapping_layers, equalized)
        self.constant = nn.Parameter(torch.randn(widths[0], *_bottom(resolution)))
        self.blocks = nn.ModuleList(
            Block(widths[max(0, i - 1)], width, image_channels, self.w_dim, index=i, noise=noise, equalized=equalized)
            for i, width in enumerate(widths)
        )
        self.num_ws = 2 * len(widths)
        self.register_buffer("w_mean", torch.zeros(self.w_dim))
        if style_rank:
            project_styles(self, style_rank)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent, after the pixel norm."""
        return self.mapper.layers[0]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,) in at least float32; near [-1, 1], unbounded."""
        return self.synthesis(self.mapping(z, y), latent_seeds(z) if self.training else None)

    def style_parts(self) -> list[tuple[str, nn.Module, int]]:
        """Return (dotted name, modulated convolution, row of ws) of every style, from the 4x4 map up."""
        return [
            (f"blocks.{i}.{name}", layer, block.row + offset)  # pyright: ignore
            for i, block in enumerate(self.blocks)
            for offset, (name, layer) in enumerate(block.parts())  # pyright: ignore
        ]

    def render(self, takes: Sequence[Tensor | Style], seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of a w (n, w_dim) or a ``Style`` per entry of ``style_parts``."""
        x, image, rest = self.constant[None], None, iter(takes)
        for block in self.blocks:
            x, image = block(x, image, [next(rest) for _ in block.parts()], seeds)  # pyright: ignore
        assert image is not None
        return image

    def freeze_noise(self, strength: float | None = None) -> None:
        """Fix every noise strength, at ``strength`` if given: parameters become buffers of the same names.

        Call it before creating the optimizer and the average. ``noise=False`` turns the noise off altogether.
        """
        for part in self.modules():
            if isinstance(part, StyledConv):
                part.freeze_noise(strength)


@DISCRIMINATORS.register("stylegan2")
class StyleGAN2Discriminator(Discriminator):
    """A discriminator: conv1x1, a residual block per halving, standard deviation of images, conv3x3, two linear layers.

    With ``num_classes`` the features are projected on a learned vector per class. An image affects the others of its
    group: ``group_size`` consecutive images, chosen so that no group mixes reals and fakes if the batch is reals and
    then as many fakes.

    Args:
        channels: width at full size, doubled at each halving up to 512.
        equalized: as for the generator.

    Raises:
        UserError: a side of the images is not a multiple of 4 pixels.

    Source: Karras et al. 2020, arXiv:1912.04958.

    Example:
        >>> import torch
        >>> from orthogan.models import StyleGAN2Discriminator
        >>> critic = StyleGAN2Discriminator(resolution=32, image_channels=3, channels=4)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    rectangles = True

    def __init__(
        self, *, resolution: Any, image_channels: int, channels: int, num_classes: int = 0, equalized: bool = True
    ) -> None:
        super().__init__()
        widths = _widths(resolution, channels)[::-1]
        top = widths[-1]
        self.num_classes = num_classes
        self.image = EqualConv2d(image_channels, widths[0], 1, equalized=equalized)
        self.blocks = nn.ModuleList(ResidualBlock(a, b, equalized) for a, b in itertools.pairwise(widths))
        self.conv = EqualConv2d(top + 1, top, 3, equalized=equalized)
        self.hidden = EqualLinear(top * math.prod(_bottom(resolution)), top, equalized=equalized)
        self.linear = EqualLinear(top, 1, equalized=equalized)
        self.embedding = ClassEmbedding(num_classes, top) if num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        x = activate(self.image(x))
        for block in self.blocks:
            x = block(x)
        x = activate(self.conv(with_deviation(x)))
        h = activate(self.hidden(x.flatten(1)))
        logits = self.linear(h).squeeze(1)
        if self.embedding is None:
            return logits
        return logits + project(h, self.embedding, y) / math.sqrt(h.shape[1])


class ResidualBlock(nn.Module):
    """A block (n, inputs, s, s) -> (n, outputs, s/2, s/2): two convolutions plus a 1x1 shortcut, divided by sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, equalized: bool) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, inputs, 3, equalized=equalized)
        self.conv2 = EqualConv2d(inputs, outputs, 3, down=True, equalized=equalized)
        self.shortcut = EqualConv2d(inputs, outputs, 1, down=True, bias=False, equalized=equalized)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block in the published order: blur, halve, activate."""
        return (activate(self.conv2(activate(self.conv1(x)))) + self.shortcut(x)) * math.sqrt(0.5)


def project_styles(generator: nn.Module, rank: int = 10, layers: str | Sequence[str] = UP) -> list[str]:
    """Replace affine layers of a style-based generator by a ``HouseholderProjector``; return their names.

    Each projector keeps the ``rank`` largest singular directions of the current weight, with singular values 1, and the
    bias (Song et al. 2023). A row of ``projector.directions()`` is a direction of w at that layer.

    Args:
        layers: which of ``generator.style_layers()``, as in ``orthogan.weights.select``; by default those of the
            up-sampling convolutions.

    Raises:
        ValueError: there are no style layers, a word matches no layer, the rank does not fit, or a layer is a projector
            already; then no layer is replaced.
    """
    if not isinstance(generator, StyleGAN2Generator):
        raise ValueError(f"{type(generator).__name__} has no style layers: a StyleGAN2Generator is needed")
    styles = dict(generator.style_layers())
    new: dict[str, nn.Module] = {}
    for name in choose(styles, layers, what=f"the style layers of {type(generator).__name__}"):
        try:
            new[name] = HouseholderProjector.from_linear(styles[name], rank)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    for name, projector in new.items():
        generator.set_submodule(name, projector)
    return list(new)


def _widths(resolution: Any, channels: int) -> list[int]:
    """Return the channels of the maps, from the smallest map to full size."""
    depth = halvings("stylegan2", resolution, BOTTOM)
    # never narrower than requested, if that is above the usual limit
    return [min(channels << (depth - i), max(WIDEST, channels)) for i in range(depth + 1)]


def _bottom(resolution: Any) -> tuple[int, int]:
    """Return height and width of the smallest map."""
    depth = halvings("stylegan2", resolution, BOTTOM)
    height, width = sides(resolution)
    return height >> depth, width >> depth
