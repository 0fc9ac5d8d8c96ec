"""Modules built on ``orthogan.linalg``: whitening, covariance pooling, orthogonal convolution and projectors."""

from orthogan.layers.covariance_pooling import CovariancePooling
from orthogan.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d, decorrelate
from orthogan.layers.householder_projector import HouseholderPixel, HouseholderProjector
from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d, skew_orthogonal

__all__ = [
    "CovariancePooling",
    "DecorrelatedBatchNorm2d",
    "HouseholderPixel",
    "HouseholderProjector",
    "SkewOrthogonalConv2d",
    "decorrelate",
    "skew_orthogonal",
]
