"""BigGAN and the generator of BigGAN-deep exactly as published, so that they take the weights of others.

Written from the paper (Brock et al. 2018). The outputs equal those of PyTorch-StudioGAN (BigGAN) and of
pytorch-pretrained-biggan (BigGAN-deep) in float32. Their spectral norm is baked into the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import joined_statistics, several_processes
from orthogan.models.families.resnet_blocks import project, square, unsupported_resolution
from orthogan.models.generate import truncate
from orthogan.models.label_table import ClassEmbedding
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

BOTTOM = 4
EPS = 1e-4
MOMENTUM = 0.1
SQUEEZE = 4  # of the inner width of a block of BigGAN-deep
# multiples of the base width: G after the linear layer and after each block; D after each block
UP = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}
UP |= {512: (16, 16, 8, 8, 4, 2, 1, 1)}
DOWN = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}
DOWN |= {512: (1, 1, 2, 4, 8, 8, 16, 16)}
# of BigGAN-deep: after the linear layer and after each block; every second block doubles the size
DEEP = {128: (16, 16, 16, 16, 8, 8, 4, 4, 2, 2, 1), 256: (16, 16, 16, 16, 8, 8, 8, 8, 4, 4, 2, 2, 1)}
DEEP |= {32: (16, 16, 16, 16, 8, 8, 4), 64: (16, 16, 16, 16, 8, 8, 4, 4, 2), 512: (*DEEP[256], 1, 1)}


class StoredNorm(nn.Module):
    """A batch norm whose gain and bias are linear in a condition (n, k), with statistics for several truncations.

    Args:
        condition: length of the condition; 0 for a learned gain and bias.
        rows: number of stored statistics, for truncations evenly spaced from 0 to 1. One row serves all.
    """

    means: Tensor
    variances: Tensor

    def __init__(self, channels: int, condition: int, rows: int = 1) -> None:
        super().__init__()
        self.gain = nn.Linear(condition, channels, bias=False) if condition else None
        self.shift = nn.Linear(condition, channels, bias=False) if condition else None
        self.weight = None if condition else nn.Parameter(torch.ones(channels))
        self.bias = None if condition else nn.Parameter(torch.zeros(channels))
        self.register_buffer("means", torch.zeros(rows, channels))
        self.register_buffer("variances", torch.ones(rows, channels))

    @property
    def running_mean(self) -> Tensor:
        """The means; by this name, layers whose training uses statistics of the batch are recognized."""
        return self.means

    def forward(self, x: Tensor, condition: Tensor | None, truncation: float) -> Tensor:
        """Normalize (n, c, h, w); training uses and updates the statistics of the batch, for every truncation.

        They are those of the batches of all processes.
        """
        if self.training and several_processes():
            with torch.autocast(x.device.type, enabled=False):
                centered, mean, variance, count = joined_statistics(x)
                x = (centered * torch.rsqrt(variance + EPS).view(-1, 1, 1)).to(x.dtype)
            self._follow(mean, variance * (count / (count - 1).clamp_min(1)))
        elif self.training:
            with torch.no_grad():
                variance, mean = torch.var_mean(x.float(), (0, 2, 3))
            x = functional.batch_norm(x, None, None, training=True, eps=EPS)
            self._follow(mean, variance)
        else:
            mean, variance = self._at(truncation)
            x = functional.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), eps=EPS)
        if self.gain is None or self.shift is None:
            assert self.weight is not None
            assert self.bias is not None
            return x * self.weight[:, None, None] + self.bias[:, None, None]
        return x * (1 + self.gain(condition))[:, :, None, None] + self.shift(condition)[:, :, None, None]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        self.means.lerp_(mean.to(self.means), MOMENTUM)
        self.variances.lerp_(variance.to(self.variances), MOMENTUM)

    def _at(self, truncation: float) -> tuple[Tensor, Tensor]:
        """Return mean and variance; between two rows they are mixed with the weights that the authors' code uses."""
        if len(self.means) == 1:
            return self.means[0], self.variances[0]
        part, start = math.modf(truncation / (1.0 / (len(self.means) - 1)))
        row = int(start)
        if part == 0:
            return self.means[row], self.variances[row]
        mean, variance = (both[row] * part + both[row + 1] * (1 - part) for both in (self.means, self.variances))
        return mean, variance


class SelfAttention(nn.Module):
    """Self-attention over the pixels of a map, at half the resolution for keys and values (Zhang et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, h, w)."""
        query = self.theta(x).flatten(2)
        key, value = (functional.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        weights = torch.softmax(query.mT @ key, -1)
        return x + self.gamma * self.out((value @ weights.mT).view(x.shape[0], -1, *x.shape[2:]))


class WideUpBlock(nn.Module):
    """A block of BigGAN: norm, ReLU, x2, conv3x3, norm, ReLU, conv3x3; shortcut: x2, conv1x1."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = StoredNorm(inputs, condition), StoredNorm(outputs, condition)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, 2h, 2w)."""
        h = functional.interpolate(functional.relu(self.norm1(x, condition, 1.0)), scale_factor=2)
        h = self.conv2(functional.relu(self.norm2(self.conv1(h), condition, 1.0)))
        return h + functional.interpolate(self.shortcut(x), scale_factor=2)  # commutes with the 1x1 convolution


class WideDownBlock(nn.Module):
    """A block of BigGAN's discriminator: ReLU, conv3x3, ReLU, conv3x3, mean over 2x2; shortcut: conv1x1 and the mean.

    ``first`` omits the first ReLU. Without ``down`` and a change of width the shortcut is the identity.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h/2, w/2), or the same size without ``down``."""
        h = self.conv2(functional.relu(self.conv1(x if self.first else functional.relu(x))))
        h = h + self.shortcut(x)
        return functional.avg_pool2d(h, 2) if self.down else h


@GENERATORS.register("biggan")
class BigGANGenerator(Generator):
    """The generator of BigGAN: a part of z to the 4x4 map, and one to the norms of each block, beside the class.

    Args:
        channels: base width; 96 in the paper.
        latent_dim: a multiple of the number of parts, one more than there are blocks: 120 at 128 px.
        num_classes: > 0 for a shared vector of length ``label_width`` per class.
        widths: after the linear layer and after each block; those of the paper if empty.
        attention: number of the block after which there is self-attention, from 1; 0 for none.

    Raises:
        UserError: the resolution is not 32, 64, 128, 256 or 512.
        ValueError: latent_dim is no multiple of the number of parts.

    Source: Brock et al. 2018, arXiv:1809.11096.

    Example:
        >>> import torch
        >>> from orthogan.models import BigGANGenerator
        >>> generator = BigGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16, num_classes=10)
        >>> generator(generator.sample_latent(2, seed=0), torch.tensor([3, 5])).shape
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
        label_width: int = 128,
        widths: Sequence[int] = (),
        attention: int = 0,
    ) -> None:
        super().__init__()
        if resolution not in UP:
            raise unsupported_resolution("biggan", resolution, UP)
        widths = list(widths) or [channels * factor for factor in UP[resolution]]
        count = len(widths) - 1
        self.part = latent_dim // (count + 1)
        if resolution != BOTTOM << count or latent_dim != self.part * (count + 1):
            raise ValueError(
                f"widths has length {len(widths)} and latent_dim is {latent_dim}: {resolution} px need "
                f"{resolution.bit_length() - 2} entries, of which latent_dim is a multiple"
            )
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.embedding = ClassEmbedding(num_classes, label_width) if num_classes else None
        condition = self.part + (label_width if num_classes else 0)
        self.linear = nn.Linear(self.part, widths[0] * BOTTOM**2)
        self.blocks = nn.ModuleList(WideUpBlock(a, b, condition) for a, b in itertools.pairwise(widths))
        self.attention_after = attention
        self.attention = SelfAttention(widths[attention]) if attention else None
        self.norm = StoredNorm(widths[-1], 0)
        self.image = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        orthogonal_start(self)

    def first_layer(self) -> nn.Module:
        """Raise AttributeError: the latent enters every block, not one layer."""
        raise AttributeError("the latent of a biggan enters every block; there is no first layer")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim) under labels (n,)."""
        self.check(z, y)
        first, *parts = z.split(self.part, 1)
        x = square(self.linear(first), self.blocks[0].conv1.in_channels, BOTTOM)  # pyright: ignore
        shared = [] if self.embedding is None else [self.embedding(y)]
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True), 1):
            x = block(x, torch.cat([*shared, part], 1))
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        return self.image(functional.relu(self.norm(x, None, 1.0))).tanh()


@DISCRIMINATORS.register("biggan", "biggan-deep")
class BigGANDiscriminator(Discriminator):
    """The discriminator of BigGAN: residual blocks, ReLU, sum over the map, linear; plus a class projection.

    Args:
        channels: base width; 96 in the paper.
        widths: after each block; those of the paper if empty. ``downs``: the first N blocks halve the size.
        attention: number of the block after which there is self-attention, from 1; 0 for none.

    Raises:
        UserError: the resolution is not 32, 64, 128, 256 or 512.

    Source: Brock et al. 2018, arXiv:1809.11096.

    Example:
        >>> import torch
        >>> from orthogan.models import BigGANDiscriminator
        >>> critic = BigGANDiscriminator(resolution=32, image_channels=3, channels=8)
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
        attention: int = 0,
    ) -> None:
        super().__init__()
        if resolution not in DOWN:
            raise unsupported_resolution("biggan", resolution, DOWN)
        widths = [image_channels, *(widths or [channels * factor for factor in DOWN[resolution]])]
        downs = 2 if resolution == 32 else len(widths) - 2
        self.num_classes = num_classes
        self.blocks = nn.ModuleList(
            WideDownBlock(a, b, down=i < downs, first=i == 0) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.attention_after = attention
        self.attention = SelfAttention(widths[attention]) if attention else None
        self.linear = nn.Linear(widths[-1], 1)
        self.embedding = ClassEmbedding(num_classes, widths[-1]) if num_classes else None
        orthogonal_start(self)

    def image_blocks(self) -> list[tuple[str, list[nn.Module]]]:
        """Return the parts of the network by name, starting at the image; the attention belongs to its block."""
        parts = [(f"blocks.{i}", [block]) for i, block in enumerate(self.blocks)]
        if self.attention is not None:
            parts[self.attention_after - 1][1].append(self.attention)
        head: list[tuple[str, list[nn.Module]]] = [] if self.embedding is None else [("embedding", [self.embedding])]
        return [*parts, ("linear", [self.linear]), *head]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w) under labels (n,)."""
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        features = functional.relu(x).sum((2, 3))
        logits = self.linear(features).squeeze(1)
        return logits if self.embedding is None else logits + project(features, self.embedding, y)


class DeepBlock(nn.Module):
    """A block of BigGAN-deep: four times norm, ReLU, convolution (1x1, 3x3, 3x3, 1x1) at a quarter of the width.

    The shortcut drops channels and repeats pixels where needed.
    """

    def __init__(self, inputs: int, outputs: int, condition: int, *, up: bool, rows: int) -> None:
        super().__init__()
        self.up, self.outputs, inner = up, outputs, inputs // SQUEEZE
        self.norms = nn.ModuleList(StoredNorm(width, condition, rows) for width in (inputs, inner, inner, inner))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2)
            for a, b, kernel in ((inputs, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, outputs, 1))
        )

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h, w), or twice the size with ``up``."""
        h = x
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = functional.relu(norm(h, condition, truncation))
            h = conv(functional.interpolate(h, scale_factor=2) if self.up and i == 1 else h)
        x = x[:, : self.outputs]
        return h + (functional.interpolate(x, scale_factor=2) if self.up else x)


@GENERATORS.register("biggan-deep")
class BigGANDeepGenerator(Generator):
    """The generator of BigGAN-deep: z and a vector of the class, together, to the 4x4 map and to all norms.

    Latents are normal within [-2, 2], times ``truncation``; the norms have statistics for each truncation.

    Args:
        channels: base width; 128 in the paper.
        truncation: 0 to 1. It can also be set later, as an attribute of the network.
        label_width: length of the vector per class; ``latent_dim`` by default.
        widths: after the linear layer and after each block; those of the paper if empty.
        attention: number of the block before which there is self-attention, from 0; -1 for none.
        rows: number of truncations for which there are statistics; 51 in the published weights.

    Raises:
        UserError: the resolution is not 32, 64, 128, 256 or 512.
        ValueError: another number of widths, or a truncation outside 0 to 1.

    Source: Brock et al. 2018, arXiv:1809.11096, appendix B.

    Example:
        >>> import torch
        >>> from orthogan.models import BigGANDeepGenerator
        >>> generator = BigGANDeepGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16, num_classes=10)
        >>> generator(generator.sample_latent(2, seed=0), torch.tensor([3, 5])).shape
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
        truncation: float = 1.0,
        label_width: int | None = None,
        widths: Sequence[int] = (),
        attention: int = -1,
        rows: int = 1,
    ) -> None:
        super().__init__()
        if resolution not in DEEP:
            raise unsupported_resolution("biggan-deep", resolution, DEEP)
        widths = list(widths) or [channels * factor for factor in DEEP[resolution]]
        if len(widths) != 2 * resolution.bit_length() - 5:
            raise ValueError(f"widths has length {len(widths)}: {resolution} px need {2 * resolution.bit_length() - 5}")
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation is {truncation}: must be from 0 to 1")
        self.latent_dim, self.num_classes, self.truncation = latent_dim, num_classes, truncation
        self.resolution, self.image_channels = resolution, image_channels
        label = (label_width or latent_dim) if num_classes else 0
        self.embedding = ClassEmbedding(num_classes, label) if num_classes else None
        self.linear = nn.Linear(latent_dim + label, widths[0] * BOTTOM**2)
        self.blocks = nn.ModuleList(
            DeepBlock(a, b, latent_dim + label, up=i % 2 == 1, rows=rows)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.attention_before = attention
        self.attention = SelfAttention(widths[attention]) if attention >= 0 else None
        self.norm = StoredNorm(widths[-1], 0, rows)
        self.image = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        orthogonal_start(self)

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw latents (n, latent_dim) from the normal distribution within [-2, 2], times ``truncation``."""
        return self.truncation * truncate(super().sample_latent(n, seed=seed), math.erf(math.sqrt(2)))

    def first_layer(self) -> nn.Module:
        """Raise AttributeError: the latent enters every norm, not one layer."""
        raise AttributeError("the latent of a biggan-deep enters every norm; there is no first layer")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim) under labels (n,)."""
        self.check(z, y)
        condition = z if self.embedding is None else torch.cat([z, self.embedding(y)], 1)
        # the published weights have the channels of this layer last
        x = self.linear(condition).unflatten(1, (BOTTOM, BOTTOM, -1)).permute(0, 3, 1, 2)
        for i, block in enumerate(self.blocks):
            if self.attention is not None and i == self.attention_before:
                x = self.attention(x)
            x = block(x, condition, self.truncation)
        return self.image(functional.relu(self.norm(x, None, self.truncation))).tanh()


def orthogonal_start(net: nn.Module) -> None:
    """Set orthogonal weights and zero biases, as published."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
            if layer.weight.device.type != "meta":
                nn.init.orthogonal_(layer.weight)
            if not isinstance(layer, nn.Embedding) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
