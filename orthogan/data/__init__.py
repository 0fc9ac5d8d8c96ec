"""Image sources, the position-indexed shuffling, batches and augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthogan.lazy import lazy_names

if TYPE_CHECKING:
    from orthogan.data.augment.ada import AdaptiveAugment
    from orthogan.data.augment.diffaugment import DiffAugment
    from orthogan.data.batches import Batches
    from orthogan.data.factors import FactorGrid
    from orthogan.data.open import open_configured, open_held_out, open_source
    from orthogan.data.order import permuted_index
    from orthogan.data.source import ArraySource, BadFile, DataRequest, ImageSource
    from orthogan.data.sources import DATA_SOURCES, DataSource
    from orthogan.data.transforms import flip, to_float

__all__ = [
    "DATA_SOURCES",
    "AdaptiveAugment",
    "ArraySource",
    "BadFile",
    "Batches",
    "DataRequest",
    "DataSource",
    "DiffAugment",
    "FactorGrid",
    "ImageSource",
    "flip",
    "open_configured",
    "open_held_out",
    "open_source",
    "permuted_index",
    "to_float",
]

# imported on first use: reading a config only needs the names
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "augment.ada": ("AdaptiveAugment",),
        "augment.diffaugment": ("DiffAugment",),
        "batches": ("Batches",),
        "factors": ("FactorGrid",),
        "open": ("open_configured", "open_held_out", "open_source"),
        "order": ("permuted_index",),
        "source": ("ArraySource", "BadFile", "DataRequest", "ImageSource"),
        "sources": ("DATA_SOURCES", "DataSource"),
        "transforms": ("flip", "to_float"),
    },
)
