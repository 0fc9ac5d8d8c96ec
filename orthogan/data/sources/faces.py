"""The portraits of ``orthogan.data.faces`` as a data source."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from orthogan.config.base import Count, Section
from orthogan.data.faces import CANVAS, draw_factors, factors, optional_parts, render
from orthogan.data.resize import fit_arrays
from orthogan.data.source import DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.io.hashing import ContentHash
from orthogan.rng import derive

DEFAULT_COUNTS = {"train": 50_000, "test": 10_000}
CLASS_NAMES = ("long hair", "short hair")


class Portraits(ImageSource):
    """Random pixel-art portraits, drawn when they are read; the class is long or short hair.

    ``table``: factors int (n, 17) from ``orthogan.data.faces.draw_factors``. At multiples of 16 pixels each pixel of
    the art is repeated; other sizes are reduced from the next multiple.

    Example:
        >>> from orthogan.data import open_source
        >>> faces = open_source("faces", resolution=32, channels=3, count=100, fixed={"glasses": "none"})
        >>> len(faces), faces.factor_names[:3]
        (100, ['background', 'skin', 'accessories'])
    """

    def __init__(self, table: np.ndarray, resolution: int, split: str = "train", channels: int = 3) -> None:
        known = factors()
        self.name, self.resolution, self.channels = f"faces-{split}-{len(table)}", resolution, channels
        self.class_names, self.num_classes = list(CLASS_NAMES), len(CLASS_NAMES)
        self.factor_names, self.factor_sizes = list(known.names), list(known.sizes)
        self.factor_values = known.values
        self._table = table
        hair = known.names.index("hair")
        long = np.array([value.startswith("long") for value in known.values[hair]])
        self._labels = np.where(long[table[:, hair]], 0, 1).astype(np.int64)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the portraits at ``indices``; also returns their classes."""
        return self._drawn(self._table[indices]), self._labels[indices]

    def _drawn(self, table: np.ndarray) -> np.ndarray:
        images = render(table, -(-self.resolution // CANVAS) * CANVAS)
        if images.shape[1:3] == (self.channels, self.resolution):
            return images
        stored = images.transpose(0, 2, 3, 1)
        return fit_arrays(stored, resolution=self.resolution, channels=self.channels, name=self.name)

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Draw portraits uint8 (n, channels, resolution, resolution) of any factors int (n, 17).

        The color of an absent part is ignored; a part that is present but has the color none gets the first color.
        """
        table = np.array(factors)
        for part, color in optional_parts():
            table[:, color] = np.where(table[:, part] > 0, np.maximum(table[:, color], 1), 0)
        return self._drawn(table)

    @property
    def factors(self) -> np.ndarray:
        """Return the factor classes of every portrait, int (N, K)."""
        return self._table

    def fingerprint(self) -> str:
        """Return a hash of all factors and of 64 portraits."""
        some = np.linspace(0, len(self) - 1, min(64, len(self))).astype(np.int64)
        digest = ContentHash().text("faces", self.resolution, *["gray"] * (self.channels == 1))
        return digest.array(self._table).array(self.read(some)[0]).hexdigest()


class FaceOptions(Section):
    """Options of the source faces."""

    fixed: dict[str, str | Count] = Field(
        default={}, description="factors to keep fixed, for example {glasses: none, skin: 2}"
    )


@DATA_SOURCES.register("faces")
class Faces(DataSource):
    """``count`` portraits (default 50,000, or 10,000 for the split "test").

    Portrait i depends on ``seed``, ``split``, ``fixed`` and i alone; the two splits have different portraits.
    """

    splits = ("train", "test")
    factors = True
    options = FaceOptions
    origin = "drawn from pixel-art of dicebear-styles (DiceBear)"
    license = "CC0-1.0"

    def open(self, data: DataRequest) -> Portraits:
        """Open the portraits, which are drawn when they are read. Raises UserError for unknown factors."""
        count = DEFAULT_COUNTS[data.split] if data.count is None else data.count
        fixed = FaceOptions(**data.options).fixed
        table = draw_factors(count, seed=derive(data.seed, "faces", data.split), fixed=fixed)
        return Portraits(table, data.resolution, data.split, data.channels)
