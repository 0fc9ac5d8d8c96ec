"""The interface of a set of images: an indexable store of uint8 images of one size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from orthogan.arguments import integer
from orthogan.data.resize import MOST_CHANNELS, fit_arrays
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash
from orthogan.size import as_resolution, sides
from orthogan.words import counted

IN_MEMORY_LIMIT = 1 << 30  # a set of at most this many bytes after resizing is kept in memory


class BadFile(NamedTuple):
    """A file that could not be decoded, and why.

    Example:
        >>> from orthogan.data import BadFile
        >>> BadFile("broken.jpg", "not an image").reason
        'not an image'
    """

    name: str
    reason: str


class Annotation(NamedTuple):
    """Labels, classes and factors of the images of a set, as in ``ImageSource``; ``labels``: int64 (N,).

    If the labels are vectors, ``labels`` are rows of ``label_vectors``, and each row is one of the classes.
    """

    labels: np.ndarray | None = None
    class_names: Sequence[str] = ()
    factors: np.ndarray | None = None
    factor_names: Sequence[str] = ()
    factor_sizes: Sequence[int] = ()
    why_unlabeled: str = ""
    factor_values: Sequence[Sequence[str]] = ()
    label_vectors: np.ndarray | None = None
    label_names: Sequence[str] = ()


@dataclass(frozen=True)
class DataRequest:
    """The request to a data source: the arguments of ``orthogan.data.open_source``, which documents them.

    Example:
        >>> from orthogan.data import DataRequest
        >>> DataRequest("sprites", channels=1, count=100).resolution
        32
    """

    source: str
    path: str | None = None
    split: str = "train"
    resolution: Any = 32  # or (height, width)
    channels: int = 3
    count: int | None = None
    seed: int = 0
    bad_images: Literal["skip", "error"] = "skip"
    bad_limit: float = 0.01
    root: str = "data"
    download: bool = True
    in_memory_limit: int = IN_MEMORY_LIMIT
    options: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, images: np.ndarray, name: object) -> np.ndarray:
        """Convert stored images (N, H, W) or (N, H, W, C) to uint8 (N, channels, height, width).

        Raises UserError, naming ``name``, for other shapes and types.
        """
        return fit_arrays(images, resolution=self.resolution, channels=self.channels, name=str(name))


class ImageSource(ABC):
    """A set of N images of one size, with labels and, if known, generative factors.

    Attributes of every source:

    - ``name``: name in tables and file names, such as ``cifar10-train``;
    - ``resolution``: height and width of the images, or (height, width) if they differ [pixels];
    - ``channels``: 1 (gray), 3 (RGB), 2 or 4 (the same with alpha), or more;
    - ``num_classes``: 0 if there are no labels; ``class_names``: one string per class;
    - ``label_vectors``: float32 (num_classes, K) if the labels are vectors, such as several attributes per image: every
      different vector is then a class; ``label_names``: of the K numbers, if known;
    - ``why_unlabeled``: why there are no labels and how to fix it, if known;
    - ``in_memory``: whether ``read`` only copies (True) or has to decode or render (False);
    - ``factor_names`` and ``factor_sizes``: of the columns of ``factors``, empty where none are known;
    - ``factor_values``: for each column the name of every value, empty where the values are numbers in order.

    A source may be used from forked or spawned worker processes.

    Example:
        >>> from orthogan.data import open_source
        >>> source = open_source("sprites", count=100, channels=1)
        >>> len(source), source.factor_names
        (100, ['shape', 'scale', 'orientation', 'x', 'y'])
    """

    name: str
    resolution: Any  # int, or (height, width)
    channels: int
    num_classes: int = 0
    class_names: Sequence[str] = ()
    why_unlabeled: str = ""
    in_memory: bool = False
    factor_names: Sequence[str] = ()
    factor_sizes: Sequence[int] = ()
    factor_values: Sequence[Sequence[str]] = ()
    label_vectors: np.ndarray | None = None
    label_names: Sequence[str] = ()
    _factors: np.ndarray | None = None

    def annotate(self, note: Annotation, count: int) -> None:
        """Set the attributes from ``note`` about ``count`` images; ``labels`` are zeros if it has none."""
        self.labels = np.zeros(count, np.int64) if note.labels is None else note.labels
        self.class_names, self.num_classes = list(note.class_names), len(note.class_names)
        self.factor_names, self.factor_sizes = list(note.factor_names), list(note.factor_sizes)
        self.factor_values = [tuple(values) for values in note.factor_values]
        self._factors, self.why_unlabeled = note.factors, note.why_unlabeled
        self.label_vectors, self.label_names = note.label_vectors, list(note.label_names)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 (n, channels, height, width) and labels int64 (n,), which are 0 without classes.

        ``indices``: integers (n,) in [0, N), in any order, repeats allowed. The result is owned by the caller.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hexadecimal hash that changes when the images, their transform or their labels change."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return the image uint8 (channels, height, width) and label at ``index``, which may be negative.

        Raises IndexError if out of range, TypeError for anything but an integer.
        """
        place = integer("index", index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self.name}: index {place} is out of range for {counted(len(self), 'image')}")
        images, labels = self.read(np.array([place % len(self)]))
        return images[0], int(labels[0])

    @property
    def factors(self) -> np.ndarray | None:
        """Return the integer classes (N, K) of the generative factors of every image, or None."""
        return self._factors

    @property
    def nbytes(self) -> int:
        """Size of all images as uint8 [bytes]."""
        return len(self) * self.channels * math.prod(sides(self.resolution))

    def take_bad(self) -> list[BadFile]:
        """Return the files that ``read`` found unreadable in this process since the last call."""
        return []

    def report_bad(self, files: Sequence[BadFile]) -> None:
        """Count unreadable files found by a worker process, and name each once.

        Raises UserError if there are more than the source accepts.
        """
        del files

    def classes_in_words(self, *, used: bool) -> str:
        """Describe the classes, such as "3 (cat, dog, zebra)"; ``used``: whether a model is trained on them."""
        if not self.num_classes:
            return "unconditional"
        listed = ", ".join(self.class_names[:10]) + (", ..." if self.num_classes > 10 else "")
        what = f"{self.num_classes} ({listed})"
        if self.label_vectors is not None:
            size = self.label_vectors.shape[1]
            named = f" ({', '.join(self.label_names[:10])}{', ...' * (size > 10)})" if self.label_names else ""
            what = f"vectors of {size} numbers{named}, {self.num_classes} different ones"
        return what + ("" if used else "; unconditional unless data.labels=true")

    def __repr__(self) -> str:
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        shape = "x".join(map(str, (self.channels, *sides(self.resolution))))
        return f"<{type(self).__name__} {self.name}: {counted(len(self), 'image')} {shape}{classes}>"


class ArraySource(ImageSource):
    """Images held in memory.

    Args:
        name: name of the set in tables and file names.
        images: uint8 (N, C, H, W) with C from 1 to 16; kept, not copied.
        labels: integers (N,) in [0, num_classes).
        class_names: one string per class; an unlabeled set has none.
        factors: integer classes (N, K).
        label_vectors: float32 (num_classes, K), the vector that each class stands for; ``label_names`` of its numbers.
        transform: description of the processing of the original images; part of the fingerprint.

    Raises:
        UserError: the shapes, types or labels do not match.

    Example:
        >>> import numpy as np
        >>> from orthogan.data import ArraySource
        >>> images = np.zeros((6, 3, 8, 8), np.uint8)
        >>> labels = np.array([0, 1, 2, 0, 1, 2])
        >>> source = ArraySource("mine", images, labels=labels, class_names=["cat", "dog", "fox"])
        >>> len(source), source.num_classes, source.resolution
        (6, 3, 8)
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
        why_unlabeled: str = "",
        factor_values: Sequence[Sequence[str]] = (),
        label_vectors: np.ndarray | None = None,
        label_names: Sequence[str] = (),
        transform: str = "",
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[1] <= MOST_CHANNELS:
            raise UserError(
                f"{name}: images must be uint8 (N, 1 to {MOST_CHANNELS}, H, W), not {images.dtype} {images.shape}"
            )
        if len(images) == 0:
            raise UserError(f"{name}: contains no images")
        if factors is not None and factors.shape != (wanted := (len(images), len(factor_names))):
            raise UserError(f"{name}: factors have shape {factors.shape}, expected {wanted}")
        self.name, self.images = name, images
        self.channels, self.resolution = int(images.shape[1]), as_resolution(*map(int, images.shape[2:]))
        self.annotate(
            Annotation(
                _checked_labels(name, len(images), labels, len(class_names)),
                class_names,
                factors,
                factor_names,
                factor_sizes,
                why_unlabeled,
                factor_values,
                label_vectors,
                label_names,
            ),
            len(images),
        )
        self._transform = transform
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the images and labels at ``indices``."""
        return self.images[indices], self.labels[indices]

    def fingerprint(self) -> str:
        """Return a hash of every pixel and label, the class names and the transform; computed once."""
        if self._fingerprint is None:
            digest = ContentHash().text(self._transform, *self.class_names)
            if self.label_vectors is not None:
                digest.array(self.label_vectors)
            self._fingerprint = digest.array(self.images).array(self.labels).hexdigest()
        return self._fingerprint


def _checked_labels(name: str, count: int, labels: np.ndarray | None, classes: int) -> np.ndarray | None:
    if labels is None or classes == 0:
        return None
    labels = np.asarray(labels).astype(np.int64, copy=False)
    if labels.shape != (count,):
        raise UserError(f"{name}: {count} images but labels of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"{name}: labels range from {labels.min()} to {labels.max()}, but {classes} classes allow 0 to "
            f"{classes - 1}"
        )
    return labels
