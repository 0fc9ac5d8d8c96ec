"""The traversal as one picture: rows are directions, columns are offsets, the base image framed in the middle."""

from __future__ import annotations

import math
import os
from pathlib import Path

from PIL import Image, ImageDraw

from orthogan.latent.caption import column_labels, score_lines, subtitle, title
from orthogan.latent.grid import BACKGROUND, INK, default_scale, magnify, save_png
from orthogan.latent.text import Font, fit
from orthogan.latent.traverse import Traversal

READABLE_SIDE = 72  # pixels: room for a row's labels beside it
MARGIN = 12
GUTTER = 3
FRAME = 3
GREY = (112, 112, 118)
ACCENT = (200, 60, 30)
LABEL_WIDTH = 180
LEAST_WIDTH = 320
CONTROL = "control: random directions of the same length"


def render_grid(traversal: Traversal, *, scale: int | None = None) -> Image.Image:
    """The whole traversal, labelled, on a light ground; random control rows below a line.

    ``scale``: whole-number nearest-neighbour magnification; by default small images grow to 72 pixels.
    """
    rows, steps, _, height, width = traversal.frames.shape
    zoom = default_scale(height, width, READABLE_SIDE) if scale is None else scale
    heading, name_font, small = Font(16), Font(14), Font(12)
    lines = [[fit(text, small, LABEL_WIDTH) for text in score_lines(traversal, row)] for row in range(rows)]
    names = [fit(name, name_font, LABEL_WIDTH) for name in traversal.names]

    widest = max([name_font.width(n) for n in names] + [small.width(t) for row in lines for t in row])
    left = MARGIN + math.ceil(widest) + 10
    columns = column_labels(traversal)
    step_x = max(width * zoom + GUTTER, math.ceil(max(map(small.width, columns))) + 6)
    text_height = name_font.line_height + max(map(len, lines)) * small.line_height
    step_y = max(height * zoom, text_height) + GUTTER
    wide = max(left + steps * step_x + MARGIN, LEAST_WIDTH)

    head = _wrapped(title(traversal), heading, wide - 2 * MARGIN)
    under = _wrapped(subtitle(traversal), small, wide - 2 * MARGIN)
    ticks = MARGIN + len(head) * heading.line_height + len(under) * small.line_height + 6
    top = ticks + small.line_height + FRAME + 1
    controls = int(traversal.is_control.sum())
    gap = (small.line_height + 14) if controls and controls < rows else 0
    tall = top + rows * step_y + gap + FRAME + MARGIN

    picture = Image.new("RGB", (wide, tall), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    y = MARGIN
    for text in head:
        heading.draw(draw, (MARGIN, y), text, INK)
        y += heading.line_height
    for text in under:
        small.draw(draw, (MARGIN, y), text, GREY)
        y += small.line_height

    for column, text in enumerate(columns):
        colour = ACCENT if column == traversal.centre else GREY
        small.draw(draw, (left + column * step_x + (step_x - GUTTER) / 2, ticks), text, colour, anchor="ma")

    for row in range(rows):
        y = top + row * step_y + (gap if traversal.is_control[row] else 0)
        if gap and row == rows - controls:
            line = y - gap + 5
            draw.line([(MARGIN, line), (wide - MARGIN, line)], fill=GREY, width=1)
            small.draw(draw, (MARGIN, line + 3), fit(CONTROL, small, wide - 2 * MARGIN), GREY)
        inset = (step_y - GUTTER - height * zoom) // 2
        for column in range(steps):
            x = left + column * step_x + (step_x - GUTTER - width * zoom) // 2
            picture.paste(magnify(traversal.frames[row, column], zoom), (x, y + inset))
        block = name_font.line_height + len(lines[row]) * small.line_height
        at = y + (step_y - GUTTER - block) / 2
        name_font.draw(draw, (left - 10, at), names[row], INK, anchor="ra")
        at += name_font.line_height
        for text in lines[row]:
            small.draw(draw, (left - 10, at), text, GREY, anchor="ra")
            at += small.line_height

    for first, last in _blocks(rows, controls if gap else 0):
        above = top + first * step_y + (gap if gap and first >= rows - controls else 0)
        _frame(draw, left + traversal.centre * step_x, above, step_x - GUTTER, (last - first) * step_y - GUTTER)
    return picture


def _blocks(rows: int, controls: int) -> list[tuple[int, int]]:
    """The spans of rows between separators."""
    return [(0, rows)] if not controls else [(0, rows - controls), (rows - controls, rows)]


def _frame(draw: ImageDraw.ImageDraw, x: int, y: int, width: int, height: int) -> None:
    """An outline around the box, outside of it, so that no pixel of an image is covered."""
    draw.rectangle((x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1), outline=ACCENT, width=FRAME)


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    """``text`` broken between words into lines of at most ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [fit(line, font, width) for line in lines]


def save_grid(traversal: Traversal, path: str | os.PathLike[str]) -> Path:
    """``render_grid`` as a PNG that carries the traversal's metadata."""
    return save_png(render_grid(traversal), path, traversal.metadata)
