"""The plain convolutional networks of orthogonal over-parameterized training (Liu et al. 2021): CNN-6 and CNN-9."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.classifiers.base import CLASSIFIERS, Classifier, check_size


class CNN(Classifier):
    """Three stages of conv3x3, batch norm, ReLU and 2x2 max pooling, a linear layer, and a linear classifier.

    CNN-6 follows the authors' code: two convolutions per stage, every width 64, the first linear layer over the whole
    4x4 map without batch norm or ReLU, and no biases except those of the batch norms. CNN-9 has three convolutions per
    stage; that code does not contain it, so its widths are those of CNN-6.

    Weights start as Gaussians of variance 2 / fan-in, as in that code.

    Raises:
        UserError: the resolution is not a multiple of 8.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import CNN
        >>> net = CNN(resolution=32, image_channels=3, channels=8, num_classes=10, depth=6)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    averages = False

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int = 64, num_classes: int, depth: int = 6
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        if depth not in (6, 9):
            raise ValueError(f"depth is {depth}: choose 6 or 9")
        check_size(f"cnn{depth}", resolution, 8)
        self.stages = nn.ModuleList()
        inputs = image_channels
        for _ in range(3):
            layers = nn.Sequential()
            for _ in range(depth // 3):
                layers.append(nn.Conv2d(inputs, channels, 3, padding=1, bias=False))
                layers.append(BatchNorm2d(channels))
                layers.append(nn.ReLU())
                inputs = channels
            self.stages.append(layers)
        self.hidden = nn.Linear(channels * (resolution // 8) ** 2, channels, bias=False)
        self.linear = nn.Linear(channels, num_classes, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2)
        return self.linear(self.hidden(x.flatten(1)))


for _depth in (6, 9):
    CLASSIFIERS.register(f"cnn{_depth}")(partial(CNN, depth=_depth))
