"""Dense nets (Huang et al. 2017) without bottlenecks or compression: DenseNet-40 and DenseNet-100 with k = 12."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.classifiers.base import CLASSIFIERS, Preactivated, check_size, convolution, initialise

STEM = 16  # maps before the first block, for any growth


class DenseLayer(nn.Module):
    """A dense layer: norm, ReLU, and conv3x3 to ``growth`` maps, which are appended to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(inputs)
        self.conv = convolution(inputs, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, inputs + growth, h, w)."""
        return torch.cat([x, self.conv(functional.relu(self.norm(x)))], 1)


class Transition(nn.Module):
    """A transition: norm, ReLU, conv1x1 of the same width, 2x2 mean pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(width)
        self.conv = convolution(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to (n, width, h/2, w/2)."""
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


class DenseNet(Preactivated):
    """A DenseNet for small images.

    conv3x3 to 16 maps; three blocks of (depth - 4) / 3 dense layers with a transition between them; norm, ReLU, mean
    over the map, a linear layer.

    ``channels`` is the growth k, the number of maps that each layer adds: 12 in the paper, or 24. There is no dropout,
    as in the paper's experiments in which images are cropped and flipped.

    Raises:
        UserError: the resolution is not a multiple of 4.
        ValueError: the depth is not 3n + 4.

    Source: Huang et al. 2017, arXiv:1608.06993.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import DenseNet
        >>> net = DenseNet(resolution=32, image_channels=3, channels=4, num_classes=10, depth=10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int = 12, num_classes: int, depth: int = 100
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        count, rest = divmod(depth - 4, 3)
        if rest or count < 1:
            raise ValueError(f"depth is {depth}: it must be 3n + 4, such as 40 or 100")
        check_size(f"densenet{depth}", resolution, 4)
        self.conv = convolution(image_channels, STEM, 3)
        self.stages = nn.ModuleList()
        width = STEM
        for stage in range(3):
            layers = nn.Sequential()
            if stage:
                layers.append(Transition(width))
            for _ in range(count):
                layers.append(DenseLayer(width, channels))
                width += channels
            self.stages.append(layers)
        self.norm = BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)
        initialise(self)


for _depth in (40, 100):
    CLASSIFIERS.register(f"densenet{_depth}")(partial(DenseNet, depth=_depth))
