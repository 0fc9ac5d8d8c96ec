"""The portraits of ``orthogan.data.faces`` as a set of images."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from orthogan.config.base import Count, Section
from orthogan.data.faces import RESOLUTIONS, draw_factors, factors, render
from orthogan.data.source import DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.io.hashing import ContentHash
from orthogan.rng import derive

DEFAULT_COUNTS = {"train": 50_000, "test": 10_000}
CLASS_NAMES = ("long hair", "short hair")


class Portraits(ImageSource):
    """Random pixel-art portraits, drawn when they are read; the class says whether the hair is long or short.

    ``table``: factors int (n, 17) as ``orthogan.data.faces.draw_factors`` makes them. Images are RGB.

    Example:
        >>> from orthogan.data import open_source
        >>> faces = open_source("faces", resolution=32, channels=3, count=100, fixed={"glasses": "none"})
        >>> len(faces), faces.factor_names[:3]
        (100, ['background', 'skin', 'accessories'])
    """

    channels = 3

    def __init__(self, table: np.ndarray, resolution: int, split: str = "train") -> None:
        known = factors()
        self.name, self.resolution = f"faces-{split}-{len(table)}", resolution
        self.class_names, self.num_classes = list(CLASS_NAMES), len(CLASS_NAMES)
        self.factor_names, self.factor_sizes = list(known.names), list(known.sizes)
        self._table = table
        hair = known.names.index("hair")
        long = np.array([value.startswith("long") for value in known.values[hair]])
        self._labels = np.where(long[table[:, hair]], 0, 1).astype(np.int64)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Portraits drawn at ``indices``, and their classes."""
        return render(self._table[indices], self.resolution), self._labels[indices]

    @property
    def factors(self) -> np.ndarray:
        """The factor classes of every portrait, int (N, K)."""
        return self._table

    def fingerprint(self) -> str:
        """Hash of all factors and of 64 portraits."""
        some = np.linspace(0, len(self) - 1, min(64, len(self))).astype(np.int64)
        return ContentHash().text("faces", self.resolution).array(self._table).array(self.read(some)[0]).hexdigest()


class FaceOptions(Section):
    """What only faces have."""

    fixed: dict[str, str | Count] = Field(
        default={}, description="factors to hold at a value, such as {glasses: none, skin: 2}"
    )


@DATA_SOURCES.register("faces")
class Faces(DataSource):
    """``count`` portraits (default 50,000, or 10,000 of the part "test").

    Portrait i is a function of ``seed``, ``split``, ``fixed`` and i alone; the two parts have different portraits.
    """

    splits = ("train", "test")
    resolutions = RESOLUTIONS
    channels = (3,)
    factors = True
    options = FaceOptions

    def open(self, data: DataRequest) -> Portraits:
        """The portraits, drawn when they are read. Raises UserError for unknown factors."""
        count = DEFAULT_COUNTS[data.split] if data.count is None else data.count
        fixed = FaceOptions(**data.options).fixed
        table = draw_factors(count, seed=derive(data.seed, "faces", data.split), fixed=fixed)
        return Portraits(table, data.resolution, data.split)
