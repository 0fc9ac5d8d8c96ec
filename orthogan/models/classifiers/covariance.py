"""ResNets with a matrix decomposition (Song et al. 2022): the layer before it can be an orthogonal map.

To whiten instead of batch norm, set ``model.classifier.whitening``; covariance pooling, for any classifier, is
``model.classifier.pooling``.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from orthogan.layers import CovariancePooling
from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d
from orthogan.linalg.roots import SqrtMethod
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.models.classifiers.resnet import ResNet, SmallResNet


@CLASSIFIERS.register("stem-resnet")
class StemResNet(ResNet):
    """A ``ResNet`` whose stem, the convolution ``conv`` before the norm that whitens, can be ``skew`` orthogonal."""

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int = 64,
        num_classes: int,
        depth: int = 18,
        stem: int | None = None,
        skew: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            channels=channels,
            num_classes=num_classes,
            depth=depth,
            stem=stem,
        )
        if skew:
            self.conv = SkewOrthogonalConv2d(image_channels, self.conv.out_channels, 3, padding="zeros", bias=False)


@CLASSIFIERS.register("pooled-resnet")
class PooledResNet(SmallResNet):
    """A ``SmallResNet`` that pools its last map by the root of its covariance, after a 1x1 convolution.

    Args:
        method: how to compute the root, see ``CovariancePooling``; "mean" pools as usual.
        dimension: number of channels after the 1x1 convolution.
        skew: whether that convolution is orthogonal.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int = 16,
        num_classes: int,
        depth: int = 20,
        method: SqrtMethod | Literal["mean"] = "eigh",
        dimension: int = 64,
        skew: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            channels=channels,
            num_classes=num_classes,
            depth=depth,
        )
        if method == "mean":
            return

        def pooling(inputs: int) -> CovariancePooling:
            pool = CovariancePooling(method, 5, dimension, inputs)
            if skew:
                assert isinstance(pool.reduction, nn.Sequential)
                pool.reduction[0] = SkewOrthogonalConv2d(inputs, dimension, 1, padding="zeros", bias=False)
            return pool

        self.pool_by(pooling)
