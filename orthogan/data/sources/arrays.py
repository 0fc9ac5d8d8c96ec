"""Sets that lie in memory as one uint8 array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthogan.data.source import ImageSource
from orthogan.errors import UserError
from orthogan.io.content_hash import ContentHash


class ArraySource(ImageSource):
    """Images held in memory.

    ``images``: uint8 (N, C, H, H) with C 1 or 3; kept, not copied. ``labels``: integers (N,) in [0, num_classes).
    ``class_names``: one string a class; none makes the set unlabelled. ``factors``: integer classes (N, K).
    ``transform``: what was done to the original images, in words; it becomes part of the fingerprint.
    Raises UserError when the shapes, the type or the labels do not fit together.
    """

    in_memory = True

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        *,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        factors: np.ndarray | None = None,
        factor_names: Sequence[str] = (),
        factor_sizes: Sequence[int] = (),
        transform: str = "",
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"{name}: images must be uint8 (N, 1 or 3, H, H), not {images.dtype} {images.shape}")
        if images.shape[2] != images.shape[3]:
            raise UserError(f"{name}: images must be square, not {images.shape[2]} x {images.shape[3]} pixels")
        if len(images) == 0:
            raise UserError(f"{name}: there are no images in it")
        self.name = name
        self.channels, self.resolution = int(images.shape[1]), int(images.shape[2])
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.factor_names, self.factor_sizes = list(factor_names), list(factor_sizes)
        self.images = images
        self.labels = self._checked_labels(labels)
        self._factors = factors
        if factors is not None and factors.shape != (len(images), len(self.factor_names)):
            raise UserError(
                f"{name}: factors have shape {factors.shape}, expected {(len(images), len(self.factor_names))}"
            )
        self._transform = transform
        self._fingerprint: str | None = None

    def _checked_labels(self, labels: np.ndarray | None) -> np.ndarray:
        if labels is None or self.num_classes == 0:
            return np.zeros(len(self.images), np.int64)
        labels = np.asarray(labels).astype(np.int64, copy=False)
        if labels.shape != (len(self.images),):
            raise UserError(f"{self.name}: {len(self.images)} images but labels of shape {labels.shape}")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise UserError(
                f"{self.name}: labels run from {labels.min()} to {labels.max()}, "
                f"but {self.num_classes} classes allow 0 to {self.num_classes - 1}"
            )
        return labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.images[indices], self.labels[indices]

    @property
    def factors(self) -> np.ndarray | None:
        return self._factors

    def fingerprint(self) -> str:
        """Hash of every pixel and label, the class names and the transform; computed once."""
        if self._fingerprint is None:
            digest = ContentHash().text(self._transform, *self.class_names)
            self._fingerprint = digest.array(self.images).array(self.labels).hexdigest()
        return self._fingerprint
