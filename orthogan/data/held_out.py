"""Real images that a GAN did not see in training, for what must not reward a generator that repeats its own."""

from __future__ import annotations

import numpy as np

from orthogan.config.checks import ONE_PART
from orthogan.config.schema import DataConfig
from orthogan.data.configured import SUBSET_SEED, open_configured
from orthogan.data.order import subset
from orthogan.data.source import ImageSource
from orthogan.data.sources.sprite_sources import SpriteGrid, sprite_subset
from orthogan.errors import UserError
from orthogan.io.read import exists, user_path

HELD_OUT_SEED = 1


def open_held_out(data: DataConfig) -> ImageSource:
    """The ``test_split`` of the set that ``data`` describes, at the same size.

    Of a subset of the sprites: as many others (or a few less). Of a folder called train: the folder test beside it.

    Raises:
        UserError: there are none, or the test part is what the GAN was trained on.
    """
    if data.source.startswith("sprites") and data.count is not None:
        coloured = data.source == "sprites-colour"
        grid = SpriteGrid(coloured=coloured, resolution=data.resolution, channels=data.channels)
        ours, theirs = (subset(seed, len(grid), data.count) for seed in (SUBSET_SEED, HELD_OUT_SEED))
        classes = grid.classes(np.setdiff1d(theirs, ours))
        found = sprite_subset(classes, resolution=data.resolution, channels=data.channels)
        found.name = f"other {found.name}"
        return found
    path = user_path(data.path or "")
    if data.source == "folder" and path.name == "train" and exists(path.with_name("test"), "folder"):
        return open_configured(data.model_copy(update={"path": str(path.with_name("test"))}))
    if data.source in ONE_PART:
        raise UserError(
            f"data.source: {data.source!r} has no part that the GAN was not trained on; give other images as reference"
        )
    if data.test_split == data.split:
        raise UserError(
            f"data.split is {data.split!r}, the test part, which the GAN has seen; give other images as reference"
        )
    return open_configured(data, split=data.test_split)
