"""Differentiable augmentation of what the discriminator sees, reals and fakes alike."""

from orthogan.data.augment.ada import AdaptiveAugment
from orthogan.data.augment.diffaugment import DiffAugment

__all__ = ["AdaptiveAugment", "DiffAugment"]
