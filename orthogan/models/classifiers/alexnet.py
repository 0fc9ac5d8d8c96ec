"""AlexNet (Krizhevsky 2014) in its usual form for CIFAR: five convolutions and one linear layer, no batch norm."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from orthogan.models.classifiers.base import CLASSIFIERS, Classifier


class Stage(NamedTuple):
    """A convolution: ``factor`` is its width relative to the first; ``pooled``: 2x2 max pooling follows."""

    kernel: int
    stride: int
    factor: int
    pooled: bool


STAGES = (
    Stage(11, 4, 1, True),
    Stage(5, 1, 3, True),
    Stage(3, 1, 6, False),
    Stage(3, 1, 4, False),
    Stage(3, 1, 4, True),
)


@CLASSIFIERS.register("alexnet")
class AlexNet(Classifier):
    """Convolutions of 11, 5, 3, 3, 3 pixels with ReLU, the first with stride 4; mean over the map; a linear layer.

    ``channels`` is the width of the first convolution, 64 as published; the others are 3, 6, 4 and 4 times as wide.
    The table is that of the usual CIFAR repository (2.47 million parameters), in which the last map is one pixel for
    images of 32 px. Pooling keeps the pixel at an odd edge, so other sizes, such as 28, work too.

    Only the weights keep the activations in range: they start He-normal by fan-in, with biases of 0. The published
    learning rate is 0.01, a tenth of that of networks with batch norm.

    Source: Krizhevsky 2014, arXiv:1404.5997.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import AlexNet
        >>> net = AlexNet(resolution=32, image_channels=3, channels=4, num_classes=10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int = 64, num_classes: int) -> None:
        super().__init__(resolution, image_channels, num_classes)
        self.convs = nn.ModuleList()
        inputs = image_channels
        for stage in STAGES:
            outputs = stage.factor * channels
            conv = nn.Conv2d(inputs, outputs, stage.kernel, stage.stride, padding=stage.kernel // 2)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            inputs = outputs
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        for stage, conv in zip(STAGES, self.convs, strict=True):
            x = functional.relu(conv(x))
            if stage.pooled:
                x = functional.max_pool2d(x, 2, ceil_mode=True)
        return self.linear(self.pooled(x))
