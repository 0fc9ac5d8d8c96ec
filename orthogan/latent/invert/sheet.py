"""Projected pictures beside what the model makes of them, and where the two differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from orthogan.drawing.grid import default_scale, image_grid
from orthogan.latent.invert.project import Projection
from orthogan.latent.render.picture import ceiling, colours

SIDE = 96  # pixels: room for the captions


def sheet(projection: Projection, tuned: np.ndarray | None = None, *, names: Sequence[str] = ()) -> Image.Image:
    """Draw a row per picture: the picture, the model's, the difference, and the picture of the ``tuned`` model.

    The difference is the mean over channels of |picture - reconstruction|, from dark (0) to light (the largest value of
    all rows, which the caption names). ``names``: of the rows; those of the latents by default.
    """
    maps = projection.missing.astype(np.float64).mean(1)
    top = ceiling(maps)
    rows: list[np.ndarray] = []
    captions: list[str] = []
    for i, heat in enumerate(maps):
        cells = {
            "picture": projection.targets[i],
            "model": projection.images[i],
            f"difference, 0 to {top:g}": colours(heat, top),
        }
        if tuned is not None:
            cells["tuned model"] = tuned[i]
        rows += [np.broadcast_to(cell, (3, *cell.shape[1:])) for cell in cells.values()]
        captions += cells
    return image_grid(
        np.stack(rows),
        columns=len(rows) // len(maps),
        layout=np.arange(len(rows)).reshape(len(maps), -1),
        labels=captions,
        row_labels=list(names or projection.latents.names),
        scale=default_scale(*maps.shape[1:], side=SIDE),
    )
