"""StyleGAN2 exactly as published, so that it takes the authors' weights: configs E and F, and those of StyleGAN2-ADA.

Written from the papers in plain torch. The outputs equal those of NVIDIA's code in float32. Layers that it runs in
half precision are run in the precision of the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.linalg.precision import at_least_float32
from orthogan.models.families.modulation import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    Style,
    StyledConv,
    activate,
    blur,
    group_size,
    hash_noise,
    latent_seeds,
    modulated_conv2d,
    pixel_norm,
    style_of,
    upsample,
)
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.families.style_based import StyleBased
from orthogan.models.families.stylegan2 import BOTTOM
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator
from orthogan.weights.effective import applied_weight

Architecture = Literal["orig", "skip", "resnet"]
NoiseMode = Literal["fixed", "random", "none"]
HALF = math.sqrt(0.5)


class ConcatMapping(nn.Module):
    """A mapping network: z (n, latent_dim) and labels (n,) -> (n, outputs).

    z and an affine map of the one-hot label are scaled to a mean square of 1 each and concatenated; then linear layers
    with leaky ReLU. Without a latent (``latent_dim`` 0) it maps the label alone.
    """

    def __init__(
        self,
        latent_dim: int,
        outputs: int,
        num_classes: int,
        depth: int,
        *,
        rate: float,
        width: int | None = None,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        label = (embedding or outputs) if num_classes else 0
        widths = [latent_dim + label, *[width or outputs] * (depth - 1), outputs]
        self.embedding = EqualLinear(num_classes, label) if num_classes else None
        pairs = itertools.pairwise(widths) if depth else ()
        self.layers = nn.ModuleList(EqualLinear(a, b, lr_mul=rate) for a, b in pairs)

    def forward(self, z: Tensor | None, y: Tensor | None) -> Tensor:
        """Map in at least float32, also inside autocast."""
        device = z.device if z is not None else y.device if y is not None else torch.device("cpu")
        with torch.autocast(device.type, enabled=False):
            parts = [] if z is None else [pixel_norm(at_least_float32(z))]
            if self.embedding is not None:
                assert y is not None
                hot = y if y.is_floating_point() else functional.one_hot(y, self.num_classes)
                parts.append(pixel_norm(at_least_float32(self.embedding(hot.to(self.embedding.weight.dtype)))))
            h = torch.cat(parts, 1)
            for layer in self.layers:
                h = activate(layer(h))
            return h


class NoisyConv(StyledConv):
    """A styled convolution with a stored map of noise, ``noise_const`` (s, s), which is used without ``seeds``.

    ``scaled``: whether 1e-8 is added to the length of the weight after its gain 1 / sqrt(fan_in), as in the TensorFlow
    code, or of the plain weight, as in the PyTorch code. ``clamp``: limit of the output before ``gain``; None for none.
    """

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, *, layer: int, side: int, up: bool, noise: bool, scaled: bool
    ) -> None:
        super().__init__(inputs, outputs, w_dim, layer=layer, up=up, noise=noise)
        self.gain = self.gain if scaled else 1.0
        self.silent = False
        if noise:
            self.register_buffer("noise_const", torch.randn(side, side))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        w: Tensor | Style,
        seeds: Tensor | None = None,
        *,
        clamp: float | None = None,
        gain: float = 1.0,
    ) -> Tensor:
        """Apply the layer as ``StyledConv`` does; the output is limited to ``clamp`` and then scaled by ``gain``."""
        h = modulated_conv2d(x, applied_weight(self), style_of(self, w), up=self.up)
        if self.noise_strength is not None and not self.silent:
            noise = self.noise_const if seeds is None else hash_noise(seeds, self.layer, h.shape[2])
            h = h + (noise.to(self.noise_strength.dtype) * self.noise_strength).to(h.dtype)
        assert self.bias is not None
        return limit(activate(h + self.bias.to(h.dtype)[:, None, None]), clamp) * gain


class SynthesisBlock(nn.Module):
    """A block that doubles maps and image, except for the first one; ``row``: first row of ws that it takes."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        image_channels: int,
        w_dim: int,
        *,
        index: int,
        last: bool,
        architecture: Architecture,
        noise: bool,
        scaled: bool,
    ) -> None:
        super().__init__()
        self.row, side = max(0, 2 * index - 1), BOTTOM << index
        more = {"side": side, "noise": noise, "scaled": scaled}
        self.up = NoisyConv(inputs, outputs, w_dim, layer=2 * index - 1, up=True, **more) if index else None
        self.conv = NoisyConv(outputs, outputs, w_dim, layer=2 * index, up=False, **more)
        rgb = last or architecture == "skip"
        self.to_rgb = ModulatedConv2d(outputs, image_channels, 1, w_dim, demodulate=False) if rgb else None
        residual = index > 0 and architecture == "resnet"
        self.shortcut = EqualConv2d(inputs, outputs, 1, bias=False) if residual else None

    def parts(self) -> list[tuple[str, ModulatedConv2d]]:
        """Return (name, layer) in the order in which the layers take rows of ws."""
        all_parts = (("up", self.up), ("conv", self.conv), ("to_rgb", self.to_rgb))
        return [(name, part) for name, part in all_parts if part is not None]

    def forward(
        self,
        x: Tensor,
        image: Tensor | None,
        takes: Sequence[Tensor | Style],
        seeds: Tensor | None,
        clamp: float | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Apply to maps (n, in, s, s), image (n, c, s, s), a w or style per layer of ``parts``, seeds (n,) or None."""
        given = iter(takes)
        side = None if self.shortcut is None else upsample(self.shortcut(x))
        if self.up is not None:
            x = self.up(x, next(given), seeds, clamp=clamp)
        x = self.conv(x, next(given), seeds, clamp=clamp, gain=1.0 if side is None else HALF)
        x = x if side is None else side * HALF + x
        image = None if image is None else upsample(image)
        if self.to_rgb is not None:
            rgb = at_least_float32(limit(self.to_rgb(x, next(given)), clamp))
            image = rgb if image is None else image + rgb
        return x, image


@GENERATORS.register("stylegan2-official")
class OfficialStyleGAN2Generator(StyleBased):
    """The generator of StyleGAN2 as published: z -> ``mapping`` -> w -> ``synthesis`` -> image.

    In eval mode the noise of each layer is the map stored in the weights (``noise_mode`` "fixed"), a hash of the latent
    ("random"), or absent ("none"). In training it is a hash of the latent.

    Args:
        channels: width at full size, doubled at each halving up to ``widest``: ``channel_base / resolution``. 32 at
            1024 px is config F, 16 config E.
        num_classes: > 0 for a mapping network that takes labels, as in StyleGAN2-ADA.
        w_dim: dimension of w; ``latent_dim`` by default.
        mapping_width, label_width: inner widths of the mapping network; ``w_dim`` by default.
        mapping_rate: learning rate of the mapping network relative to the others.
        architecture: how a block adds to the image: ``skip`` (published), ``resnet`` or ``orig``.
        clamp: limit of the outputs of the layers, 256 in networks trained with half precision; None for none.
        scaled: whether 1e-8 is added after the gain of a weight, as in the code for TensorFlow.

    Raises:
        UserError: the resolution is not a power of two from 8 to 2048.

    Source: Karras et al. 2020, arXiv:1912.04958 and 2006.06676.

    Example:
        >>> from orthogan.models import OfficialStyleGAN2Generator
        >>> generator = OfficialStyleGAN2Generator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
        >>> generator.latent_space("s").latent_dim
        352
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        w_dim: int | None = None,
        mapping_layers: int = 8,
        mapping_width: int | None = None,
        label_width: int | None = None,
        mapping_rate: float = 0.01,
        widest: int = 512,
        architecture: Architecture = "skip",
        noise: bool = True,
        noise_mode: NoiseMode = "fixed",
        clamp: float | None = None,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        widths = widths_of(resolution, channels, widest)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.w_dim, self.clamp = w_dim or latent_dim, clamp
        self.mapper = ConcatMapping(
            latent_dim,
            self.w_dim,
            num_classes,
            mapping_layers,
            rate=mapping_rate,
            width=mapping_width,
            embedding=label_width,
        )
        self.constant = nn.Parameter(torch.randn(widths[0], BOTTOM, BOTTOM))
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                widths[max(0, i - 1)],
                width,
                image_channels,
                self.w_dim,
                index=i,
                last=i == len(widths) - 1,
                architecture=architecture,
                noise=noise,
                scaled=scaled,
            )
            for i, width in enumerate(widths)
        )
        self.num_ws = 2 * len(widths)
        self.register_buffer("w_mean", torch.zeros(self.w_dim))
        self.noise_mode: NoiseMode = noise_mode

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent, after the pixel norm."""
        return self.mapper.layers[0]

    def style_parts(self) -> list[tuple[str, nn.Module, int]]:
        """Return (dotted name, modulated convolution, row of ws) of every style, from the 4x4 map up."""
        return [
            (f"blocks.{i}.{name}", layer, block.row + offset)  # pyright: ignore
            for i, block in enumerate(self.blocks)
            for offset, (name, layer) in enumerate(block.parts())  # pyright: ignore
        ]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,) in at least float32; near [-1, 1], unbounded."""
        drawn = self.training or self.noise_mode == "random"
        return self.synthesis(self.mapping(z, y), latent_seeds(z) if drawn else None)

    def render(self, takes: Sequence[Tensor | Style], seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of a w (n, w_dim) or a ``Style`` per entry of ``style_parts``."""
        x, image, rest = self.constant[None], None, iter(takes)
        for block in self.blocks:
            for part in (block.up, block.conv):  # pyright: ignore
                if isinstance(part, NoisyConv):
                    part.silent = self.noise_mode == "none"
            given = [next(rest) for _ in block.parts()]  # pyright: ignore
            x, image = block(x, image, given, seeds, self.clamp)
        assert image is not None
        return image


class DiscriminatorBlock(nn.Module):
    """A block (n, inputs, s, s) -> (n, outputs, s/2, s/2) of one of the three architectures."""

    def __init__(
        self, inputs: int, outputs: int, image_channels: int, *, first: bool, architecture: Architecture
    ) -> None:
        super().__init__()
        self.image = EqualConv2d(image_channels, inputs, 1) if first or architecture == "skip" else None
        self.conv1 = EqualConv2d(inputs, inputs, 3)
        self.conv2 = EqualConv2d(inputs, outputs, 3, down=True)
        residual = architecture == "resnet"
        self.shortcut = EqualConv2d(inputs, outputs, 1, down=True, bias=False) if residual else None
        self.shrinks_image = architecture == "skip"

    def forward(self, x: Tensor | None, image: Tensor | None, clamp: float | None) -> tuple[Tensor, Tensor | None]:
        """Apply to maps, if there are any, and the image (n, c, s, s), if it is still needed."""
        if self.image is not None:
            assert image is not None
            seen = limit(activate(self.image(image)), clamp)
            x = seen if x is None else x + seen
            image = blur(image, 1, stride=2) if self.shrinks_image else None
        assert x is not None
        h = limit(activate(self.conv1(x)), clamp)
        h = limit(activate(self.conv2(h)), clamp)
        return h if self.shortcut is None else (h + self.shortcut(x)) * HALF, image


@DISCRIMINATORS.register("stylegan2-official", "stylegan3", "stylegan2-lucidrains")
class OfficialStyleGAN2Discriminator(Discriminator):
    """The discriminator of StyleGAN2 and StyleGAN3 as published.

    An image affects the others of its group. In eval mode the groups are those of the authors: of n images, those whose
    numbers differ by multiples of n / group. In training they are the consecutive images of ``group_size``, because the
    batch is reals and then as many fakes here.

    Args:
        channels: width at full size, doubled at each halving up to ``widest``.
        num_classes: > 0 projects the features on a vector per class, which a mapping network computes.
        mapping_layers, mapping_width, mapping_rate: those of that network. ``label_width``: length of its vectors.
        architecture: ``resnet`` (published), ``skip`` or ``orig``.
        group: number of images over which the deviation is taken; 0 for the whole batch. ``deviations``: its channels.
        clamp: limit of the outputs of the layers; None for none.

    Raises:
        UserError: the resolution is not a power of two from 8 to 2048.

    Source: Karras et al. 2020, arXiv:1912.04958 and 2006.06676.

    Example:
        >>> import torch
        >>> from orthogan.models import OfficialStyleGAN2Discriminator
        >>> critic = OfficialStyleGAN2Discriminator(resolution=32, image_channels=3, channels=8)
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
        mapping_layers: int = 8,
        mapping_width: int | None = None,
        label_width: int | None = None,
        mapping_rate: float = 0.01,
        widest: int = 512,
        architecture: Architecture = "resnet",
        group: int = 4,
        deviations: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        widths = widths_of(resolution, channels, widest)[::-1]
        top = widths[-1]
        self.num_classes, self.group, self.deviations, self.clamp = num_classes, group, deviations, clamp
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, image_channels, first=i == 0, architecture=architecture)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.image = EqualConv2d(image_channels, top, 1) if architecture == "skip" else None
        self.conv = EqualConv2d(top + deviations, top, 3)
        self.hidden = EqualLinear(top * BOTTOM**2, top)
        vector = label_width or top
        self.linear = EqualLinear(top, vector if num_classes else 1)
        self.mapper = (
            ConcatMapping(0, vector, num_classes, mapping_layers, rate=mapping_rate, width=mapping_width)
            if num_classes
            else None
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        if self.mapper is not None and y is None:
            raise UserError("this discriminator is conditional: it needs the labels of the images")
        maps, image = None, x
        for block in self.blocks:
            maps, image = block(maps, image, self.clamp)
        assert maps is not None
        if self.image is not None:
            maps = maps + activate(self.image(image))
        maps = limit(activate(self.conv(self._with_deviation(maps))), self.clamp)
        h = self.linear(activate(self.hidden(maps.flatten(1))))
        if self.mapper is None:
            return h.squeeze(1)
        return (h * self.mapper(None, y).to(h.dtype)).sum(1) / math.sqrt(h.shape[1])

    def _with_deviation(self, x: Tensor) -> Tensor:
        """Append the standard deviation over a group of images: (n, c, h, w) -> (n, c + deviations, h, w)."""
        if not self.deviations:
            return x
        n = len(x)
        size = group_size(n) if self.training else next(s for s in range(self.group or n, 0, -1) if n % s == 0)
        with torch.autocast(x.device.type, enabled=False):
            order = (n // size, size) if self.training else (size, n // size)
            groups = at_least_float32(x).unflatten(0, order).unflatten(2, (self.deviations, -1))
            over = 1 if self.training else 0
            spread = torch.sqrt(groups.var(over, correction=0, keepdim=True) + 1e-8).mean((3, 4, 5))
            channel = spread.expand(*order, -1).flatten(0, 1)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.cat([x, channel.to(x.dtype)], 1)


def limit(x: Tensor, clamp: float | None) -> Tensor:
    """Return x limited to [-clamp, clamp], or x itself for None."""
    return x if clamp is None else x.clamp(-clamp, clamp)


def widths_of(resolution: int, channels: int, widest: int) -> list[int]:
    """Return the channels of the maps, from the 4x4 map to full size."""
    if resolution not in (sizes := [8 << i for i in range(9)]):
        raise unsupported_resolution("stylegan2-official", resolution, sizes)
    return [min(channels * (resolution >> i), widest) for i in range(2, resolution.bit_length())]
