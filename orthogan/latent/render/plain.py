"""A traversal as images alone, without captions and gaps, at any size: a picture or an endless loop."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from orthogan.drawing.grid import default_scale, enlarge, save_png
from orthogan.io.write import write_bytes
from orthogan.latent.render.animation import READABLE_SIDE, swing, timeline
from orthogan.latent.render.loop import encode_loop
from orthogan.latent.traverse import Traversal

FPS = 25


def tiles(images: np.ndarray, across: int) -> np.ndarray:
    """``images`` uint8 (n, c, h, w) side by side, ``across`` to a row; missing ones at the end are black.

    Example:
        >>> tiles(np.ones((3, 1, 4, 4), np.uint8), 2).shape
        (1, 8, 8)
    """
    down = math.ceil(len(images) / across)
    _, channels, height, width = images.shape
    filled = np.zeros((down * across, channels, height, width), np.uint8)
    filled[: len(images)] = images
    rows = filled.reshape(down, across, channels, height, width).transpose(2, 0, 3, 1, 4)
    return rows.reshape(channels, down * height, across * width)


def save_plain(
    traversal: Traversal, path: str | os.PathLike[str], *, side: int | None = None, smooth: bool = False
) -> Path:
    """Write the images of a traversal and nothing else.

    Args:
        traversal: one image per direction and offset.
        path: a .png has a row per direction; a .gif, .webp or .mp4 shows all directions at once, near a square, and
            swings out and back.
        side: width in pixels (default: small images are magnified).
        smooth: resample with a Lanczos filter; otherwise pixels stay sharp squares.

    Raises:
        UserError: a size that does not fit in memory, a missing encoder, or a place that cannot be written.
    """
    rows, steps, _, height, width = traversal.frames.shape
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        picture = tiles(traversal.frames.reshape(-1, *traversal.frames.shape[2:]), steps)
        wide = picture.shape[2] * default_scale(height, width) if side is None else side
        return save_png(enlarge(picture, wide, smooth=smooth), path, traversal.metadata)
    across = math.ceil(math.sqrt(rows))
    columns = [tiles(traversal.frames[:, column], across) for column in range(steps)]
    wide = columns[0].shape[2] * default_scale(height, width, READABLE_SIDE) if side is None else side
    order = timeline(swing(steps), FPS)
    made = encode_loop(columns, order, suffix, side=wide, smooth=smooth, fps=FPS, about=traversal.metadata)
    return write_bytes(path, made)
