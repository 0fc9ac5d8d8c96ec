"""The contact sheet as one picture: a block for each direction, a row for each seed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from orthogan.drawing.grid import default_scale, save_png
from orthogan.latent.directions import CHANGE
from orthogan.latent.render.caption import column_labels, score_text, sheet_subtitle, title
from orthogan.latent.render.contact_sheet import ContactSheet
from orthogan.latent.render.heatmap import differences
from orthogan.latent.render.rows import Block, Row, draw_blocks

READABLE_SIDE = 56  # pixels: many rows, of one line of text each


def render_sheet(sheet: ContactSheet, *, scale: int | None = None, heatmap: bool = False) -> Image.Image:
    """All directions below one another, in each the seeds in their order; all at one scale of offsets.

    The score "change" in a heading is the mean over the seeds. ``scale``, ``heatmap``: as of ``render_grid``.
    """
    first = sheet.traversals[0]
    maps = [differences(one) if heatmap else [None] * len(first) for one in sheet.traversals]
    blocks = []
    for row, name in enumerate(first.names):
        scores = first.scores[row] | {CHANGE: float(np.mean([one.scores[row][CHANGE] for one in sheet.traversals]))}
        rows = [
            Row(one.frames[row], _base(seed, one.metadata["class"]), heat=heats[row])
            for seed, one, heats in zip(sheet.seeds, sheet.traversals, maps, strict=True)
        ]
        control = "control: a random direction of the same length, " if first.is_control[row] else ""
        blocks.append(Block(rows, heading=name, about=control + score_text(scores)))
    return draw_blocks(
        blocks,
        title=title(first),
        subtitle=sheet_subtitle(sheet),
        columns=column_labels(first),
        zoom=default_scale(*first.frames.shape[-2:], side=READABLE_SIDE) if scale is None else scale,
    )


def _base(seed: int, label: str) -> str:
    return f"seed {seed}" if label == "none" else f"seed {seed}, class {label}"


def save_sheet(sheet: ContactSheet, path: str | os.PathLike[str], *, heatmap: bool = False) -> Path:
    """``render_sheet`` as a PNG that carries the metadata."""
    return save_png(render_sheet(sheet, heatmap=heatmap), path, sheet.metadata)
