"""The sprites, plain (black and white) or colored, as the full grid or a random subset."""

from __future__ import annotations

import colorsys

import numpy as np

from orthogan.data.factors import check_factors
from orthogan.data.order import subset
from orthogan.data.source import ArraySource, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.data.sprites import CANVAS, FACTOR_NAMES, FACTOR_SIZES, SHAPE_NAMES, render
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash

# The color variant: bright, saturated sprites on a dark, muted background. Hues are evenly spaced, starting at red.
HUES, GROUNDS = 8, 6
COLOUR_NAMES = (*FACTOR_NAMES, "hue", "background")
COLOUR_SIZES = (*FACTOR_SIZES, HUES, GROUNDS)
HELD_OUT_SEED = 1


def _palette(count: int, saturation: float, value: float) -> np.ndarray:
    colours = [colorsys.hsv_to_rgb(k / count, saturation, value) for k in range(count)]
    return np.round(255 * np.array(colours)).astype(np.uint8)


SPRITE_COLOURS = _palette(HUES, saturation=1.0, value=1.0)  # (8, 3) RGB
GROUND_COLOURS = _palette(GROUNDS, saturation=0.6, value=0.4)  # (6, 3) RGB


def coverage(classes: np.ndarray, resolution: int) -> np.ndarray:
    """Return how much of each pixel the sprite covers, uint8 (B, resolution, resolution) from 0 to 255.

    At 64 pixels, values are 0 or 255; at 32, the mean of 2 x 2 pixels, with halves rounded up: 0, 64, 128, 191, 255.
    """
    pictures = render(classes)
    if resolution == CANVAS:
        return pictures * np.uint8(255)
    quarters = pictures.reshape(len(pictures), resolution, 2, resolution, 2).sum((2, 4), dtype=np.uint16)
    return ((quarters * 255 + 2) // 4).astype(np.uint8)


def colour(mask: np.ndarray, hue: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Blend sprite and background colors by ``mask`` uint8 (B, h, w): uint8 (B, 3, h, w), rounded to nearest."""
    weight = mask[:, None].astype(np.int32)
    front = SPRITE_COLOURS[hue].astype(np.int32)[:, :, None, None]
    back = GROUND_COLOURS[ground].astype(np.int32)[:, :, None, None]
    return ((weight * front + (255 - weight) * back + 127) // 255).astype(np.uint8)


def _pictures(classes: np.ndarray, resolution: int, channels: int) -> np.ndarray:
    mask = coverage(classes[:, :5], resolution)
    if classes.shape[1] == len(COLOUR_SIZES):
        return colour(mask, classes[:, 5], classes[:, 6])
    return np.repeat(mask[:, None], channels, axis=1)


class SpriteGrid(ImageSource):
    """Every combination of the factors, rendered when read; image i has the factors ``unravel_index(i)``."""

    def __init__(self, *, coloured: bool, resolution: int, channels: int) -> None:
        self.name = "sprites-colour" if coloured else "sprites"
        self.resolution, self.channels = resolution, channels
        self.class_names, self.num_classes = list(SHAPE_NAMES), len(SHAPE_NAMES)
        self.factor_names = list(COLOUR_NAMES if coloured else FACTOR_NAMES)
        self.factor_sizes = list(COLOUR_SIZES if coloured else FACTOR_SIZES)

    def __len__(self) -> int:
        return int(np.prod(self.factor_sizes))

    def classes(self, indices: np.ndarray) -> np.ndarray:
        """Return the factors int64 (n, K) of the images at ``indices``."""
        return np.stack(np.unravel_index(indices, tuple(self.factor_sizes)), axis=1).astype(np.int64, copy=False)

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Images uint8 (n, c, s, s) of factors (n, K). Raises ValueError for a value that does not exist."""
        return self.read(np.asarray(np.ravel_multi_index(tuple(factors.T), tuple(self.factor_sizes))))[0]

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the sprites at ``indices``; their shape is the class."""
        classes = self.classes(indices)
        return _pictures(classes, self.resolution, self.channels), classes[:, 0].copy()

    @property
    def factors(self) -> np.ndarray:
        """Return the whole grid, int16 (N, K), computed on every access: 7 MB for plain, 0.5 GB for colored sprites."""
        table = np.empty((len(self), len(self.factor_sizes)), np.int16)
        for start in range(0, len(self), 1 << 20):
            stop = min(start + (1 << 20), len(self))
            table[start:stop] = self.classes(np.arange(start, stop))
        return table

    def fingerprint(self) -> str:
        """Return a hash of the description of the grid and of 64 images spread over it."""
        digest = ContentHash().text(self.name, self.factor_sizes)
        return digest.array(self.read(np.linspace(0, len(self) - 1, 64).astype(np.int64))[0]).hexdigest()


def sprite_subset(classes: np.ndarray, *, resolution: int, channels: int) -> ArraySource:
    """Render the sprites of the given factors once, int (n, 5) or, if colored, (n, 7)."""
    coloured = classes.shape[1] == len(COLOUR_SIZES)
    names, sizes = (COLOUR_NAMES, COLOUR_SIZES) if coloured else (FACTOR_NAMES, FACTOR_SIZES)
    classes = check_factors("sprites", classes, names, sizes)
    pieces = [_pictures(classes[i : i + 1024], resolution, channels) for i in range(0, len(classes), 1024)]
    return ArraySource(
        f"sprites{'-colour' if coloured else ''}-{len(classes)}",
        np.concatenate(pieces),
        labels=classes[:, 0].copy(),
        class_names=SHAPE_NAMES,
        factors=classes,
        factor_names=names,
        factor_sizes=sizes,
        transform=f"sprites {resolution}",
    )


@DATA_SOURCES.register("sprites")
class Sprites(DataSource):
    """The full grid (``count`` None), rendered when read, or ``count`` random sprites, rendered immediately.

    The subset is drawn without replacement and depends on ``seed`` and ``count`` alone. Values run from 0 to 255;
    plain sprites with 3 channels are gray.
    """

    resolutions = (CANVAS // 2, CANVAS)
    factors = True
    origin = "drawn by orthogan, with the factors of dSprites"
    license = "MIT"
    colored = False

    def grid(self, data: DataRequest) -> SpriteGrid:
        """Return every combination of the factors."""
        return SpriteGrid(coloured=self.colored, resolution=data.resolution, channels=data.channels)

    def open(self, data: DataRequest) -> ImageSource:
        """Open the grid or a part of it. Raises UserError for more images than the grid has."""
        grid = self.grid(data)
        if data.count is None:
            return grid
        if not 1 <= data.count <= len(grid):
            raise UserError(f"{data.source}: count must be from 1 to {len(grid)}, not {data.count}")
        classes = grid.classes(subset(data.seed, len(grid), data.count))
        return sprite_subset(classes, resolution=data.resolution, channels=data.channels)

    def open_held_out(self, data: DataRequest, test_split: str) -> ImageSource:
        """Open as many other sprites as ``count``, or a few less."""
        if data.count is None:
            return super().open_held_out(data, test_split)
        grid = self.grid(data)
        ours, theirs = (subset(seed, len(grid), data.count) for seed in (data.seed, HELD_OUT_SEED))
        classes = grid.classes(np.setdiff1d(theirs, ours))
        found = sprite_subset(classes, resolution=data.resolution, channels=data.channels)
        found.name = f"other {found.name}"
        return found


@DATA_SOURCES.register("sprites-colour")
class ColoredSprites(Sprites):
    """Like ``sprites``, in 8 hues on 6 backgrounds."""

    channels = (3,)
    colored = True
