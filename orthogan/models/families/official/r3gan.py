"""R3GAN exactly as published, so that it takes the authors' weights.

Written from the paper. The outputs equal those of the authors' code in float32; layers that it runs in bfloat16 are run
in the precision of the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.models.families.modulation import blur, upsample
from orthogan.models.families.r3gan import BOTTOM, GAIN, SLOPE
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

SIZES = tuple(8 << i for i in range(9))


class OfficialBlock(nn.Module):
    """A block x + conv1x1(act(grouped conv3x3(act(conv1x1 x)))), each activation after a bias of its own."""

    def __init__(self, channels: int, groups: int, expansion: int, kernel: int, depth: int) -> None:
        super().__init__()
        wide, gain = channels * expansion, GAIN * depth**-0.25
        self.conv1 = _conv(channels, wide, 1, gain)
        self.conv2 = _conv(wide, wide, kernel, gain, groups)
        self.conv3 = _conv(wide, channels, 1, 0.0)
        self.bias1 = nn.Parameter(torch.zeros(wide))
        self.bias2 = nn.Parameter(torch.zeros(wide))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, h, w)."""
        h = functional.leaky_relu(self.conv1(x) + self.bias1[:, None, None], SLOPE)
        h = functional.leaky_relu(self.conv2(h) + self.bias2[:, None, None], SLOPE)
        return x + self.conv3(h)


@GENERATORS.register("r3gan-official")
class OfficialR3GANGenerator(Generator):
    """The generator of R3GAN as published: a 4x4 basis modulated by z, residual blocks, and a doubling per size.

    Args:
        channels: width at full size, doubled at each halving; used where ``widths`` is empty.
        num_classes: > 0 appends a learned vector per class, of length ``label_width``, to z.
        widths, groups: of the maps and of the inner convolutions, from 4 px up; by default groups have 16 channels.
        blocks: residual blocks per size. ``expansion``: inner width relative to the outer. ``kernel``: inner side.

    Raises:
        UserError: the resolution is not a power of two from 8 to 2048.
        ValueError: the lists have another length than there are sizes.

    Source: Huang et al. 2024, arXiv:2501.05441.

    Example:
        >>> from orthogan.models import OfficialR3GANGenerator
        >>> generator = OfficialR3GANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
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
        label_width: int = 64,
        widths: Sequence[int] = (),
        groups: Sequence[int] = (),
        blocks: Sequence[int] = (),
        expansion: int = 2,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        widths, groups, blocks = _plan(resolution, channels, widths, groups, blocks, expansion)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.embedding = ClassEmbedding(num_classes, label_width) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, num_classes**-0.5)
        inputs = latent_dim + (label_width if num_classes else 0)
        self.linear = nn.Linear(inputs, widths[0], bias=False)
        nn.init.normal_(self.linear.weight, 0.0, inputs**-0.5)
        self.basis = nn.Parameter(torch.randn(widths[0], BOTTOM, BOTTOM))
        self.transitions = nn.ModuleList(
            _conv(a, b, 1) if a != b else nn.Identity() for a, b in itertools.pairwise(widths)
        )
        self.stages = _stages(widths, groups, blocks, expansion, kernel)
        self.image = _conv(widths[-1], image_channels, 1)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        if self.embedding is not None:
            raise AttributeError("the first layer of a conditional r3gan-official takes the label too")
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,); near [-1, 1] but unbounded, as in the paper."""
        self.check(z, y)
        code = z if self.embedding is None else torch.cat([z, self.embedding(y)], 1)
        x = self.stages[0](self.basis * self.linear(code)[:, :, None, None])
        for transition, stage in zip(self.transitions, list(self.stages)[1:], strict=True):
            x = stage(upsample(transition(x)))
        return self.image(x)


@DISCRIMINATORS.register("r3gan-official")
class OfficialR3GANDiscriminator(Discriminator):
    """The discriminator of R3GAN as published: residual blocks, a halving per size, a 4x4 basis, linear.

    Args:
        channels, widths, groups, blocks, expansion, kernel: as for the generator, also from 4 px up.
        num_classes: > 0 projects the features, of length ``label_width``, on a learned vector per class.

    Raises:
        UserError: the resolution is not a power of two from 8 to 2048.
        ValueError: the lists have another length than there are sizes.

    Source: Huang et al. 2024, arXiv:2501.05441.

    Example:
        >>> import torch
        >>> from orthogan.models import OfficialR3GANDiscriminator
        >>> critic = OfficialR3GANDiscriminator(resolution=32, image_channels=3, channels=8)
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
        label_width: int = 64,
        widths: Sequence[int] = (),
        groups: Sequence[int] = (),
        blocks: Sequence[int] = (),
        expansion: int = 2,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        widths, groups, blocks = (plan[::-1] for plan in _plan(resolution, channels, widths, groups, blocks, expansion))
        self.num_classes, top = num_classes, widths[-1]
        self.image = _conv(image_channels, widths[0], 1)
        self.stages = _stages(widths, groups, blocks, expansion, kernel)
        self.transitions = nn.ModuleList(
            _conv(a, b, 1) if a != b else nn.Identity() for a, b in itertools.pairwise(widths)
        )
        self.basis = nn.Conv2d(top, top, BOTTOM, groups=top, bias=False)
        nn.init.normal_(self.basis.weight, 0.0, 1 / BOTTOM)
        self.linear = nn.Linear(top, label_width if num_classes else 1, bias=False)
        nn.init.normal_(self.linear.weight, 0.0, top**-0.5)
        self.embedding = ClassEmbedding(num_classes, label_width) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, (num_classes * label_width) ** -0.5)

    def image_blocks(self) -> list[tuple[str, list[nn.Module]]]:
        """Return the parts of the network by name, starting at the image; a transition belongs to the next stage."""
        moves: list[list[nn.Module]] = [[], *([move] for move in self.transitions)]
        parts = [
            (f"stages.{i}", [*move, stage]) for i, (move, stage) in enumerate(zip(moves, self.stages, strict=True))
        ]
        head: list[tuple[str, list[nn.Module]]] = [] if self.embedding is None else [("embedding", [self.embedding])]
        return [("image", [self.image]), *parts, ("basis", [self.basis]), ("linear", [self.linear]), *head]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        if self.embedding is not None and y is None:
            raise UserError("this discriminator is conditional: it needs the labels of the images")
        x = self.stages[0](self.image(x))
        for transition, stage in zip(self.transitions, list(self.stages)[1:], strict=True):
            x = stage(transition(blur(x, 1, stride=2)))
        h = self.linear(self.basis(x).flatten(1))
        return h.squeeze(1) if self.embedding is None else (h * self.embedding(y)).sum(1)


def _plan(
    resolution: int,
    channels: int,
    widths: Sequence[int],
    groups: Sequence[int],
    blocks: Sequence[int],
    expansion: int,
) -> tuple[list[int], list[int], list[int]]:
    """Return the widths, groups and numbers of blocks per size, from 4 px up."""
    if resolution not in SIZES:
        raise unsupported_resolution("r3gan-official", resolution, SIZES)
    count = resolution.bit_length() - 2
    widths = list(widths) or [min(channels << i, max(channels, 768)) for i in reversed(range(count))]
    groups = list(groups) or [max(1, width * expansion // 16) for width in widths]
    blocks = list(blocks) or [2] * count
    for name, given in (("widths", widths), ("groups", groups), ("blocks", blocks)):
        if len(given) != count:
            raise ValueError(f"{name} has length {len(given)}: must be {count}, one per size from 4 to {resolution}")
    return widths, groups, blocks


def _stages(
    widths: Sequence[int], groups: Sequence[int], blocks: Sequence[int], expansion: int, kernel: int
) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(*(OfficialBlock(width, group, expansion, kernel, sum(blocks)) for _ in range(count)))
        for width, group, count in zip(widths, groups, blocks, strict=True)
    )


def _conv(inputs: int, outputs: int, kernel: int, gain: float = 1.0, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(layer.weight, 0.0, gain / (inputs // groups * kernel**2) ** 0.5)
    return layer
