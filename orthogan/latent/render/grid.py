"""The traversal as one picture: rows are directions, columns are offsets, the base image framed in the middle."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from orthogan.drawing.grid import default_scale, save_png
from orthogan.latent.render.caption import column_labels, score_lines, subtitle, title
from orthogan.latent.render.heatmap import differences
from orthogan.latent.render.rows import Block, Row, draw_blocks
from orthogan.latent.traverse import Traversal

READABLE_SIDE = 72  # pixels: room for a row's labels beside it
CONTROL = "control: random directions of the same length"


def render_grid(traversal: Traversal, *, scale: int | None = None, heatmap: bool = False) -> Image.Image:
    """The whole traversal, labelled; random control rows below a line.

    ``scale``: whole-number nearest-neighbour magnification; by default small images grow to 72 pixels.
    ``heatmap``: right of each row, where its ends differ from the centre.
    """
    maps = differences(traversal) if heatmap else [None] * len(traversal)
    rows = [
        Row(images, name, score_lines(traversal, i), heat)
        for i, (images, name, heat) in enumerate(zip(traversal.frames, traversal.names, maps, strict=True))
    ]
    count = len(traversal) - int(traversal.is_control.sum())
    return draw_blocks(
        [Block(rows[:count]), Block(rows[count:], about=CONTROL)] if 0 < count < len(rows) else [Block(rows)],
        title=title(traversal),
        subtitle=subtitle(traversal),
        columns=column_labels(traversal),
        zoom=default_scale(*traversal.frames.shape[-2:], side=READABLE_SIDE) if scale is None else scale,
    )


def save_grid(traversal: Traversal, path: str | os.PathLike[str], *, heatmap: bool = False) -> Path:
    """``render_grid`` as a PNG that carries the traversal's metadata."""
    return save_png(render_grid(traversal, heatmap=heatmap), path, traversal.metadata)
