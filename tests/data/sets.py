"""Small sets for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from orthogan.data import ArraySource


def array_source(n: int, *, channels: int = 3, resolution: int = 4, classes: int = 0, seed: int = 0) -> ArraySource:
    """Random images; image i has the value i % 256 in its first pixel, so that it can be recognised."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, channels, resolution, resolution), np.uint8)
    images[:, 0, 0, 0] = np.arange(n) % 256
    labels = rng.integers(0, classes, n) if classes else None
    return ArraySource("random", images, labels=labels, class_names=[f"class {k}" for k in range(classes)])


def solid(path: Path, colour: tuple[int, int, int] | int, *, size: tuple[int, int] = (8, 8)) -> Path:
    """Write an image file of one colour, which any resizing leaves as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)
    return path


def greys(folder: Path, count: int, *, ending: str = ".png") -> Path:
    """A folder of grey images named 000, 001 ...; image i has the value i everywhere."""
    for k in range(count):
        solid(folder / f"{k:03}{ending}", k)
    return folder
