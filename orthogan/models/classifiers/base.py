"""The base class of classifiers, and the parts that the families share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers import CovariancePooling
from orthogan.models.protocol import module_class
from orthogan.registry import Registry
from orthogan.size import UnsupportedSize

CLASSIFIERS: Registry[Callable[..., nn.Module]] = Registry(
    "classifier", "orthogan.models.classifiers", adopt=module_class
)


class Classifier(nn.Module):
    """Base class of classifiers: images (n, c, h, w) in [-1, 1] -> logits (n, num_classes).

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import Classifier
        >>> class Tiny(Classifier):
        ...     def __init__(self, resolution, image_channels, channels, num_classes):
        ...         super().__init__(resolution, image_channels, num_classes)
        ...         self.conv = torch.nn.Conv2d(image_channels, channels, 3)
        ...         self.linear = torch.nn.Linear(channels, num_classes)
        ...     def forward(self, x):
        ...         return self.linear(self.pooled(self.conv(x).relu()))
        ...
        >>> Tiny(8, 3, 4, 10)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    num_classes: int
    image_channels: int
    resolution: int
    linear: nn.Linear  # the last layer
    averages = True  # whether its input comes from ``pooled``

    def __init__(self, resolution: int, image_channels: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: a classifier needs at least 2")
        self.resolution, self.image_channels, self.num_classes = resolution, image_channels, num_classes
        self.pool: CovariancePooling | None = None

    def pool_by(self, make: Callable[[int], CovariancePooling]) -> None:
        """Replace the mean over the last map by the pooling that ``make(channels)`` returns, and the linear layer.

        Raises:
            UserError: this network does not average its last map.
        """
        if not self.averages:
            raise UserError(
                f"{type(self).__name__} has no mean over the last map that could be replaced by another pooling"
            )
        self.pool = make(self.linear.in_features)
        self.linear = nn.Linear(self.pool.features, self.num_classes)

    def pooled(self, x: Tensor) -> Tensor:
        """Pool the last map (n, c, h, w) to features (n, d): by the mean, unless ``pool_by`` replaced it."""
        return x.mean((2, 3)) if self.pool is None else self.pool(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        raise NotImplementedError


class Preactivated(Classifier):
    """A network whose layers start with their norm and ReLU, so that one more norm and ReLU follow the last layer."""

    conv: nn.Conv2d
    stages: nn.ModuleList
    norm: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        h = self.conv(x)
        for stage in self.stages:
            h = stage(h)
        return self.linear(self.pooled(functional.relu(self.norm(h))))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias (a batch norm follows), padded to keep the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def initialise(net: nn.Module) -> None:
    """Initialize convolutions He-normal by fan-out (He et al. 2015), as in the published residual networks."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def check_size(family: str, resolution: int, factor: int) -> None:
    """Refuse a resolution that the network cannot halve often enough.

    Raises:
        UserError: it is not a multiple of ``factor`` pixels.
    """
    if resolution % factor:
        raise UnsupportedSize(f"data.resolution is {resolution}: {family} needs a multiple of {factor} pixels")
