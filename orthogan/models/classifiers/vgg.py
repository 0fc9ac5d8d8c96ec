"""VGG with batch norm (Simonyan & Zisserman 2015), with one linear layer as is usual for CIFAR."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.classifiers.base import CLASSIFIERS, Classifier, check_size, convolution, initialise

COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FACTORS = (1, 2, 4, 8, 8)  # widths of the five stages, relative to ``channels``


class VGG(Classifier):
    """Five stages of conv3x3, batch norm, ReLU, each followed by 2x2 max pooling; mean over the map; a linear layer.

    ``channels`` is the width of the first stage, 64 in the paper. Convolutions before batch norms have no biases.

    Raises:
        UserError: the resolution is not a multiple of 32.
        ValueError: the depth is not 11, 13, 16 or 19.

    Source: Simonyan & Zisserman 2015, arXiv:1409.1556.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import VGG
        >>> net = VGG(resolution=32, image_channels=3, channels=4, num_classes=10, depth=11)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int = 64, num_classes: int, depth: int = 19
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        if depth not in COUNTS:
            raise ValueError(f"depth is {depth}: choose {', '.join(map(str, COUNTS))}")
        check_size(f"vgg{depth}", resolution, 32)
        self.stages = nn.ModuleList()
        inputs = image_channels
        for count, factor in zip(COUNTS[depth], FACTORS, strict=True):
            layers = nn.Sequential()
            for _ in range(count):
                layers.append(convolution(inputs, factor * channels, 3))
                layers.append(BatchNorm2d(factor * channels))
                layers.append(nn.ReLU())
                inputs = factor * channels
            self.stages.append(layers)
        self.linear = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2)
        return self.linear(self.pooled(x))


for _depth in COUNTS:
    CLASSIFIERS.register(f"vgg{_depth}")(partial(VGG, depth=_depth))
