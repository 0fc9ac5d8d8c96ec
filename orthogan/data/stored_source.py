"""Images stored as one array in a file that need not fit in memory: what all such files have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.hashing import ContentHash
from orthogan.data.resize import fit_arrays
from orthogan.data.source import ImageSource
from orthogan.errors import UserError


class StoredSource(ImageSource):
    """``length`` images of the file ``path``, read as they are needed.

    ``annotation``: the attributes labels, class_names, factors, factor_names and factor_sizes.
    ``key``: what the array is called, for the fingerprint. Raises UserError where there are no images.
    """

    def __init__(
        self, path: Path, length: int, resolution: int, channels: int, annotation: dict[str, Any], *, key: str
    ) -> None:
        if length == 0:
            raise UserError(f"{path}: there are no images in it")
        self.name, self.path, self.key = path.stem, path, key
        self.resolution, self.channels = resolution, channels
        self.class_names = annotation["class_names"]
        self.num_classes = len(self.class_names)
        self.factor_names, self.factor_sizes = annotation["factor_names"], annotation["factor_sizes"]
        self._factors = annotation["factors"]
        labels = annotation["labels"]
        self.labels = np.zeros(length, np.int64) if labels is None else labels

    @abstractmethod
    def stored(self, indices: np.ndarray) -> np.ndarray:
        """The images at ``indices`` as the file has them, uint8 (n, H, W) or (n, H, W, 1 or 3)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def factors(self) -> np.ndarray | None:
        return self._factors

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        form = {"resolution": self.resolution, "channels": self.channels}
        return fit_arrays(self.stored(indices), **form, name=str(self.path)), self.labels[indices]

    def fingerprint(self) -> str:
        """Hash of the file's size, the annotations, the transform and 64 images spread over the file."""
        digest = ContentHash().text("centre crop, lanczos", self.resolution, self.channels, *self.class_names)
        digest.text(self.path.stat().st_size, self.key).array(self.labels)
        if self._factors is not None:
            digest.array(self._factors)
        return digest.array(self.read(np.linspace(0, len(self) - 1, 64).astype(np.int64))[0]).hexdigest()
