"""The nets of the covariance study: a residual net that pools by a covariance, and stems that are orthogonal maps."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers import CovariancePooling
from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d
from orthogan.linalg.roots import SqrtMethod
from orthogan.models.classifiers import ResNet, SmallResNet


class StemResNet(ResNet):
    """``ResNet`` whose stem, the convolution ``conv`` before the norm that whitens, may be ``skew`` orthogonal."""

    def __init__(self, *, image_channels: int, channels: int = 64, skew: bool = False, **arguments: Any) -> None:
        super().__init__(image_channels=image_channels, channels=channels, **arguments)
        if skew:
            self.conv = SkewOrthogonalConv2d(image_channels, channels, 3, padding="zeros", bias=False)


class PooledResNet(SmallResNet):
    """``SmallResNet`` whose last map is pooled by the root of its covariance, after a 1x1 convolution.

    Args:
        method: of the root, see ``CovariancePooling``; "mean" pools as ever.
        dimension: channels after the 1x1 convolution.
        skew: whether that convolution is orthogonal.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 16,
        method: SqrtMethod | Literal["mean"] = "eigh",
        dimension: int = 64,
        skew: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, channels=channels, **arguments)
        self.pool: CovariancePooling | None = None
        if method == "mean":
            return
        self.pool = CovariancePooling(method, 5, dimension, 4 * channels)
        if skew:
            assert isinstance(self.pool.reduction, nn.Sequential)
            self.pool.reduction[0] = SkewOrthogonalConv2d(4 * channels, dimension, 1, padding="zeros", bias=False)
        self.linear = nn.Linear(self.pool.features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        if self.pool is None:
            return super().forward(x)
        h = functional.relu(self.norm(self.conv(x)))
        for stage in self.stages:
            h = stage(h)
        return self.linear(self.pool(h))
