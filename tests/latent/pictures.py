"""Where images are in a picture, pixel for pixel."""

from __future__ import annotations

import numpy as np


def find(picture: np.ndarray, block: np.ndarray) -> list[tuple[int, int]]:
    """Where ``block`` (h, w, 3) occurs in ``picture``, as (top, left)."""
    height, width = block.shape[:2]
    telling = int(block.astype(float).std(axis=1).sum(axis=1).argmax())  # the row least likely to be elsewhere
    needle, found = block[telling].tobytes(), []
    for top in range(len(picture) - height + 1):
        line, at = picture[top + telling].tobytes(), -1
        while (at := line.find(needle, at + 1)) >= 0:
            left = at // 3
            if at % 3 == 0 and np.array_equal(picture[top : top + height, left : left + width], block):
                found.append((top, left))
    return found


def magnified(image: np.ndarray, scale: int) -> np.ndarray:
    return np.kron(image, np.ones((1, scale, scale), np.uint8)).transpose(1, 2, 0)
