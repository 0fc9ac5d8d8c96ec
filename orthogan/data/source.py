"""What a set of images looks like to the rest of orthogan: an indexable store of square uint8 pictures."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from orthogan.errors import UserError


class BadFile(NamedTuple):
    """A file that could not be decoded, and why."""

    name: str
    reason: str


class ImageSource(ABC):
    """A set of N square images of one size, with labels and, where they are known, generative factors.

    Attributes every source has:

    - ``name``: what tables and file names call it, such as ``cifar10-train``;
    - ``resolution``: side of the images [pixels]; ``channels``: 1 (grey) or 3 (RGB);
    - ``num_classes``: 0 where there are no labels; ``class_names``: as many strings;
    - ``why_unlabeled``: why there are no labels and what to do about it, where that is known;
    - ``in_memory``: whether ``read`` only copies (True) or has to decode or render (False);
    - ``factor_names`` and ``factor_sizes``: of the columns of ``factors``, empty where none are known.

    A source may be used from forked or spawned worker processes.
    """

    name: str
    resolution: int
    channels: int
    num_classes: int = 0
    class_names: Sequence[str] = ()
    why_unlabeled: str = ""
    in_memory: bool = False
    factor_names: Sequence[str] = ()
    factor_sizes: Sequence[int] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (n, channels, resolution, resolution) and labels int64 (n,), which are 0 without classes.

        ``indices``: integers (n,) in [0, N), in any order, repeats allowed. The result is owned by the caller.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hexadecimal hash that changes when the images, their transform or their labels change."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 (channels, resolution, resolution) and label at ``index``, which may count from the end.

        Raises IndexError out of range, TypeError for anything but an integer.
        """
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, so no index {place}")
        images, labels = self.read(np.array([place % len(self)]))
        return images[0], int(labels[0])

    @property
    def factors(self) -> np.ndarray | None:
        """Integer classes (N, K) of the generative factors of every image, or None."""
        return None

    @property
    def nbytes(self) -> int:
        """Size of all images as uint8 [bytes]."""
        return len(self) * self.channels * self.resolution * self.resolution

    def take_bad(self) -> list[BadFile]:
        """The files found unreadable by ``read`` in this process since the last call."""
        return []

    def report_bad(self, files: Sequence[BadFile]) -> None:
        """Count unreadable files that a worker process met; name each once.

        Raises UserError when they are more than the source was told to accept.
        """
        del files

    def classes_in_words(self, *, used: bool) -> str:
        """Such as "3 (cat, dog, zebra)"; ``used``: whether a model is trained on them."""
        if not self.num_classes:
            return "unconditional"
        listed = ", ".join(self.class_names[:10]) + (", ..." if self.num_classes > 10 else "")
        return f"{self.num_classes} ({listed})" + ("" if used else "; unconditional unless data.labels=true")

    def __repr__(self) -> str:
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        shape = f"{self.channels}x{self.resolution}x{self.resolution}"
        return f"<{type(self).__name__} {self.name}: {len(self)} images {shape}{classes}>"


def check_split(kind: str, split: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError naming the parts that a data set has."""
    if split not in allowed:
        raise UserError(f"data.split: {kind} has {', '.join(allowed)}, not {split!r}")
