"""A multilayer perceptron on pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from orthogan.models.classifiers.base import CLASSIFIERS, Classifier


@CLASSIFIERS.register("mlp")
class MLP(Classifier):
    """An MLP with two hidden linear layers of ``channels`` neurons with ReLU, and a linear classifier; no batch norm.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import MLP
        >>> net = MLP(resolution=8, image_channels=1, channels=16, num_classes=10)
        >>> net(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    averages = False

    def __init__(self, *, resolution: int, image_channels: int, channels: int = 256, num_classes: int) -> None:
        super().__init__(resolution, image_channels, num_classes)
        self.hidden = nn.ModuleList(
            [nn.Linear(image_channels * resolution**2, channels), nn.Linear(channels, channels)]
        )
        self.linear = nn.Linear(channels, num_classes)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        h = x.flatten(1)
        for layer in self.hidden:
            h = functional.relu(layer(h))
        return self.linear(h)
