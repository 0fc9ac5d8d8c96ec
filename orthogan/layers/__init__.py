"""Layers that decompose the covariance of their input."""

from orthogan.layers.covariance_pooling import CovariancePooling
from orthogan.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d, decorrelate

__all__ = ["CovariancePooling", "DecorrelatedBatchNorm2d", "decorrelate"]
