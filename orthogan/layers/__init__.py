"""Modules built on ``orthogan.linalg``: whitening, covariance pooling, orthogonal convolution."""

from orthogan.layers.covariance_pooling import CovariancePooling
from orthogan.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d, decorrelate
from orthogan.layers.network import make_skew_orthogonal
from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d, skew_orthogonal

__all__ = [
    "CovariancePooling",
    "DecorrelatedBatchNorm2d",
    "SkewOrthogonalConv2d",
    "decorrelate",
    "make_skew_orthogonal",
    "skew_orthogonal",
]
