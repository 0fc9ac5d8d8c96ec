"""The image source that a config describes."""

from __future__ import annotations

from orthogan.config.schema import DataConfig
from orthogan.data.open import open_source
from orthogan.data.source import ImageSource

SUBSET_SEED = 0  # the subset of the sprites belongs to the data, not to a run, whatever the run's seed


def open_configured(config: DataConfig, *, split: str | None = None) -> ImageSource:
    """The images of ``config`` (or of another ``split`` of the same set); errors as ``open_source``."""
    return open_source(
        config.source,
        path=config.path,
        split=split or config.split,
        resolution=config.resolution,
        channels=config.channels,
        count=config.count,
        seed=SUBSET_SEED,
        bad_images=config.bad_images,
        bad_limit=config.bad_limit,
        root=config.root,
        download=config.download,
        fixed=config.fixed,
    )
