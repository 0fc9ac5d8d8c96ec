"""Traversals and contact sheets as one picture: labeled rows of images, with the base image framed in the middle.

Optional maps beside the rows show where each one changes the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from orthogan.drawing.grid import BACKGROUND, INK, default_scale, magnify, save_png
from orthogan.drawing.text import Font, fit
from orthogan.latent.directions import CHANGE
from orthogan.latent.render.caption import TITLE, column_labels, row_lines, sheet_subtitle, sheet_text, subtitle
from orthogan.latent.traverse import ContactSheet, Traversal
from orthogan.latent.words import plain_name

# Even steps of CIE lightness from 8 to 95, the hue from violet through red to yellow: also readable in gray.
_TABLE = np.array(
    [
        (15, 22, 48),
        (57, 34, 89),
        (117, 35, 111),
        (171, 43, 114),
        (214, 69, 108),
        (244, 108, 101),
        (252, 156, 112),
        (253, 200, 147),
        (254, 239, 207),
    ]
)


def differences(traversal: Traversal) -> np.ndarray:
    """(rows, h, w) float64, in gray levels 0 … 255: how far the two ends are from the center, pixel by pixel.

    The mean over channels and both ends of |end - center|; its mean over the pixels is the row's score "change".
    """
    frames = traversal.frames.astype(np.float64)
    return np.abs(frames[:, [0, -1]] - frames[:, [traversal.centre]]).mean(axis=(1, 2))


def ceiling(maps: np.ndarray) -> float:
    """Return the gray level of the last color for all of ``maps`` (…, h, w): their largest value, rounded up."""
    largest = float(maps.max())
    step = 5 if largest > 20 else 1
    return max(1, math.ceil(largest / step)) * step


def colours(values: np.ndarray, top: float) -> np.ndarray:
    """``values`` (h, w) from 0 to ``top`` as uint8 (3, h, w)."""
    return palette()[np.rint(np.clip(values / top, 0, 1) * 255).astype(int)].transpose(2, 0, 1)


def palette() -> np.ndarray:
    """Return the 256 colors, from no change to the largest change: uint8 (256, 3)."""
    at, knots = np.linspace(0, len(_TABLE) - 1, 256), np.arange(len(_TABLE))
    return np.rint(np.stack([np.interp(at, knots, channel) for channel in _TABLE.T], axis=1)).astype(np.uint8)


MARGIN = 12
GUTTER = 3
FRAME = 3
GREY = (112, 112, 118)
ACCENT = (200, 60, 30)
LABEL_WIDTH = 180
LEAST_WIDTH = 320
HEAT_GAP = 12  # between the last column and the map of differences
BAR = 8  # height of the color bar
HEAT_TITLE = "where it changes"


@dataclass(frozen=True)
class Row:
    """``images`` uint8 (steps, c, h, w); its ``name`` and further ``lines`` left of it; ``heat`` (h, w) or None."""

    images: np.ndarray
    name: str
    lines: Sequence[str] = ()
    heat: np.ndarray | None = None


@dataclass(frozen=True)
class Block:
    """A group of rows, below their ``heading`` and the smaller text ``about``."""

    rows: Sequence[Row]
    heading: str = ""
    about: str = ""


def draw_blocks(
    blocks: Sequence[Block], *, title: str, subtitle: str, columns: Sequence[str], zoom: int
) -> Image.Image:
    """Draw all ``blocks`` below one another, at the same scale, on a light background.

    ``columns``: text above each column; the one in the middle belongs to the base image. ``zoom``: nearest-neighbor
    magnification. Maps of differences are drawn at the right, with the same color scale for all.
    """
    heading, name_font, small = Font(16), Font(14), Font(12)
    rows = [row for block in blocks for row in block.rows]
    height, width = (size * zoom for size in rows[0].images.shape[-2:])
    names = [fit(row.name, name_font, LABEL_WIDTH) for row in rows]
    lines = [[fit(text, small, LABEL_WIDTH) for text in row.lines] for row in rows]

    widest = max([name_font.width(name) for name in names] + [small.width(text) for few in lines for text in few])
    left = MARGIN + math.ceil(widest) + 10
    step_x = max(width + GUTTER, math.ceil(max(map(small.width, columns))) + 6)
    step_y = max(height, name_font.line_height + max(map(len, lines)) * small.line_height) + GUTTER
    heats = [row.heat for row in rows if row.heat is not None]
    heat_x = left + len(columns) * step_x + HEAT_GAP
    heat_wide = max(width, math.ceil(small.width(HEAT_TITLE))) if heats else 0
    wide = max(left + len(columns) * step_x + (HEAT_GAP + heat_wide if heats else 0) + MARGIN, LEAST_WIDTH)

    head = wrapped(title, heading, wide - 2 * MARGIN)
    under = wrapped(subtitle, small, wide - 2 * MARGIN)
    ticks = MARGIN + len(head) * heading.line_height + len(under) * small.line_height + 6
    top = ticks + small.line_height + FRAME + 1
    gaps = [_gap(block, first=i == 0, name_font=name_font, small=small) for i, block in enumerate(blocks)]
    foot = BAR + 2 * small.line_height + 10 if heats else 0
    tall = top + len(rows) * step_y + sum(gaps) + foot + FRAME + MARGIN

    picture = Image.new("RGB", (wide, tall), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    y = MARGIN
    for text in head:
        heading.draw(draw, (MARGIN, y), text, INK)
        y += heading.line_height
    for text in under:
        small.draw(draw, (MARGIN, y), text, GREY)
        y += small.line_height
    middle = len(columns) // 2
    for column, text in enumerate(columns):
        at = left + column * step_x + (step_x - GUTTER) / 2
        small.draw(draw, (at, ticks), text, ACCENT if column == middle else GREY, anchor="ma")
    if heats:
        small.draw(draw, (heat_x + heat_wide / 2, ticks), HEAT_TITLE, GREY, anchor="ma")

    last = ceiling(np.stack(heats)) if heats else 0.0
    y, index = top, 0
    for block, gap in zip(blocks, gaps, strict=True):
        if gap:
            _draw_heading(draw, y, block, wide, rule=index > 0, name_font=name_font, small=small)
        y += gap
        span = len(block.rows) * step_y - GUTTER
        draw.rectangle(_around(left + middle * step_x, y, step_x - GUTTER, span), outline=ACCENT, width=FRAME)
        for row in block.rows:
            inset = (step_y - GUTTER - height) // 2
            for column, image in enumerate(row.images):
                x = left + column * step_x + (step_x - GUTTER - width) // 2
                picture.paste(magnify(image, zoom), (x, y + inset))
            if row.heat is not None:
                x = heat_x + (heat_wide - width) // 2
                picture.paste(magnify(colours(row.heat, last), zoom), (x, y + inset))
            at = y + (step_y - GUTTER - name_font.line_height - len(lines[index]) * small.line_height) / 2
            name_font.draw(draw, (left - 10, at), names[index], INK, anchor="ra")
            at += name_font.line_height
            for text in lines[index]:
                small.draw(draw, (left - 10, at), text, GREY, anchor="ra")
                at += small.line_height
            y += step_y
            index += 1
    if heats:
        _draw_bar(picture, draw, (heat_x, y + 6), heat_wide, last, small)
    return picture


def _gap(block: Block, *, first: bool, name_font: Font, small: Font) -> int:
    """The room above the rows of a block, for a line across, its heading and the frame."""
    if not (block.heading or block.about):
        return 0
    font = name_font if block.heading else small
    return font.line_height + (6 if first else 14)


def _draw_heading(
    draw: ImageDraw.ImageDraw, y: int, block: Block, wide: int, *, rule: bool, name_font: Font, small: Font
) -> None:
    if rule:
        draw.line([(MARGIN, y + 5), (wide - MARGIN, y + 5)], fill=GREY, width=1)
        y += 8
    x = float(MARGIN)
    if block.heading:
        text = fit(block.heading, name_font, wide - 2 * MARGIN)
        name_font.draw(draw, (x, y), text, INK)
        x += name_font.width(text) + 12
        y += round((name_font.line_height - small.line_height) / 2) + 1
    if block.about and x < wide - MARGIN - 40:
        small.draw(draw, (x, y), fit(block.about, small, wide - MARGIN - x), GREY)


def _around(x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Draw an outline outside of the box, so that no pixel of an image is covered."""
    return (x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1)


def _draw_bar(
    picture: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, last: float, small: Font
) -> None:
    """Draw the colors from 0 to ``last`` gray levels, with both values below."""
    x, y = at
    shades = palette()[np.linspace(0, 255, width).astype(int)]
    picture.paste(Image.fromarray(np.broadcast_to(shades, (BAR, width, 3)).copy()), (x, y))
    small.draw(draw, (x, y + BAR + 2), "0", GREY)
    small.draw(draw, (x + width, y + BAR + 2), f"{last:g}", GREY, anchor="ra")
    small.draw(draw, (x + width / 2, y + BAR + 2 + small.line_height), "gray levels", GREY, anchor="ma")


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """Wrap ``text`` between words into lines of at most ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [fit(line, font, width) for line in lines]


GRID_SIDE = 72  # pixels: space for the labels of a row beside it
CONTROL = "control: random directions of the same length"


def render_grid(traversal: Traversal, *, scale: int | None = None, heatmap: bool = False) -> Image.Image:
    """Draw the whole traversal with labels; random control rows are below a line.

    ``scale``: integer nearest-neighbor magnification; by default small images are enlarged to 72 pixels. ``heatmap``:
    show to the right of each row where its ends differ from the center.
    """
    maps = differences(traversal) if heatmap else [None] * len(traversal)
    rows = [
        Row(images, plain_name(name), row_lines(traversal, i), heat)
        for i, (images, name, heat) in enumerate(zip(traversal.frames, traversal.names, maps, strict=True))
    ]
    count = len(traversal) - int(traversal.is_control.sum())
    return draw_blocks(
        [Block(rows[:count]), Block(rows[count:], about=CONTROL)] if 0 < count < len(rows) else [Block(rows)],
        title=TITLE,
        subtitle=subtitle(traversal),
        columns=column_labels(traversal),
        zoom=default_scale(*traversal.frames.shape[-2:], side=GRID_SIDE) if scale is None else scale,
    )


def save_grid(traversal: Traversal, path: str | os.PathLike[str], *, heatmap: bool = False) -> Path:
    """Write ``render_grid`` as a PNG with the metadata of the traversal."""
    return save_png(render_grid(traversal, heatmap=heatmap), path, traversal.metadata)


SHEET_SIDE = 56  # pixels: many rows, of one line of text each


def render_sheet(sheet: ContactSheet, *, scale: int | None = None, heatmap: bool = False) -> Image.Image:
    """Draw all directions below one another, each with all seeds, at the same scale of offsets.

    The score "change" in a heading is the mean over the seeds. ``scale``, ``heatmap``: as in ``render_grid``.
    """
    first = sheet.traversals[0]
    maps = [differences(one) if heatmap else [None] * len(first) for one in sheet.traversals]
    blocks = []
    for row, name in enumerate(first.names):
        scores = first.scores[row] | {CHANGE: float(np.mean([one.scores[row][CHANGE] for one in sheet.traversals]))}
        rows = [
            Row(
                one.frames[row],
                _base(str(seed) if sheet.starts == "latent" else f"seed {seed}", one.metadata["class"]),
                heat=heats[row],
            )
            for seed, one, heats in zip(sheet.seeds, sheet.traversals, maps, strict=True)
        ]
        control = "control: a random direction of the same length, " if first.is_control[row] else ""
        blocks.append(Block(rows, heading=plain_name(name), about=control + sheet_text(first.notes[row], scores)))
    return draw_blocks(
        blocks,
        title=TITLE,
        subtitle=sheet_subtitle(sheet),
        columns=column_labels(first),
        zoom=default_scale(*first.frames.shape[-2:], side=SHEET_SIDE) if scale is None else scale,
    )


def _base(start: str, label: str) -> str:
    return start if label == "none" else f"{start}, class {label}"


def save_sheet(sheet: ContactSheet, path: str | os.PathLike[str], *, heatmap: bool = False) -> Path:
    """Write ``render_sheet`` as a PNG with the metadata."""
    return save_png(render_sheet(sheet, heatmap=heatmap), path, sheet.metadata)
