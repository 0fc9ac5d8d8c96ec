"""Images stored as one array in a file that need not fit in memory: what all such files have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.resize import check_images, fit_arrays
from orthogan.data.source import ImageSource
from orthogan.errors import UserError
from orthogan.io.content_hash import ContentHash, hash_files
from orthogan.io.read import printable

log = logging.getLogger("orthogan.data")

MOST_IMAGES = 1 << 27  # in one file; a damaged header may state any number
AT_ONCE = 1 << 26  # bytes as stored that are read at a time when all images are


def warn_of_zeros_and_ones(where: object) -> None:
    """Say that uint8 pixels which are all 0 or 1 are taken as black and white."""
    log.warning("%s: every pixel is 0 or 1, so 1 is taken as white (255)", printable(where))


class StoredSource(ImageSource):
    """The images of the file ``path``, read as they are needed: uint8 or bool (N, H, W) or (N, H, W, 1 or 3).

    ``shape``, ``dtype``: of the array. ``annotation``: the attributes labels, class_names, factors, factor_names and
    factor_sizes. ``key``: what the array is called, for the fingerprint. ``binary``: pixels are 0 and 1 and become 0
    and 255. Raises UserError where there are no images, or other arrays.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        resolution: int,
        channels: int,
        annotation: dict[str, Any],
        *,
        key: str,
    ) -> None:
        check_images(shape, dtype, str(path))
        length = shape[0]
        if length == 0:
            raise UserError(f"{printable(path)}: there are no images in it")
        check_count(path, length)
        self.name, self.path, self.key = printable(path.stem), path, key
        self.shape, self.dtype, self.binary = shape[1:], dtype, False
        self.resolution, self.channels = resolution, channels
        self.class_names = annotation["class_names"]
        self.num_classes = len(self.class_names)
        self.factor_names, self.factor_sizes = annotation["factor_names"], annotation["factor_sizes"]
        self._factors = annotation["factors"]
        labels = annotation["labels"]
        self.labels = np.zeros(length, np.int64) if labels is None else labels

    @abstractmethod
    def stored(self, indices: np.ndarray) -> np.ndarray:
        """The images at ``indices`` as the file has them, uint8 or bool (n, H, W) or (n, H, W, 1 or 3)."""

    @property
    def files(self) -> Sequence[Path]:
        """All files that hold the images."""
        return [self.path]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def factors(self) -> np.ndarray | None:
        return self._factors

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self.stored(indices)
        if self.binary:
            images = images * np.uint8(255)  # not / 255, the classic mistake
        form = {"resolution": self.resolution, "channels": self.channels}
        return fit_arrays(images, **form, name=str(self.path)), self.labels[indices]

    def pieces(self) -> Iterator[np.ndarray]:
        """The indices of all images, some at a time."""
        step = max(1, AT_ONCE // int(np.prod(self.shape)))
        for start in range(0, len(self), step):
            yield np.arange(start, min(start + step, len(self)))

    def find_binary(self) -> None:
        """Set ``binary`` where all pixels are 0 or 1, and say so; reads up to the first other pixel."""
        self.binary = self.dtype == np.uint8 and all(self.stored(i).max(initial=0) <= 1 for i in self.pieces())
        if self.binary:
            warn_of_zeros_and_ones(self.path)

    def fingerprint(self) -> str:
        """Hash of the files' content, the annotations and the transform."""
        digest = ContentHash().text("centre crop, lanczos", self.resolution, self.channels, *self.class_names)
        digest.text(self.key, hash_files(self.files)).array(self.labels)
        if self._factors is not None:
            digest.array(self._factors)
        return digest.hexdigest()


def check_count(path: Path, count: int) -> None:
    """Raises UserError for more images than anybody has in one file."""
    if count > MOST_IMAGES:
        raise UserError(f"{printable(path)}: says that it holds {count:,} images; at most {MOST_IMAGES:,} are read")
