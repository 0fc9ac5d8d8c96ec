"""Image sources, the position-indexed shuffling, batches and augmentation."""

from orthogan.data.augment import AdaptiveAugment, DiffAugment
from orthogan.data.batches import Batches
from orthogan.data.configured import open_configured
from orthogan.data.open import open_source
from orthogan.data.order import permuted_index
from orthogan.data.source import BadFile, ImageSource
from orthogan.data.sources.arrays import ArraySource
from orthogan.data.sources.factor_files import FactorGrid
from orthogan.data.transforms import flip, to_float

__all__ = [
    "AdaptiveAugment",
    "ArraySource",
    "BadFile",
    "Batches",
    "DiffAugment",
    "FactorGrid",
    "ImageSource",
    "flip",
    "open_configured",
    "open_source",
    "permuted_index",
    "to_float",
]
