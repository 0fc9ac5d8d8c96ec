"""A picture of a net's singular values: one small panel a layer, the same axes in all, drawn with Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from orthogan.drawing.grid import save_png
from orthogan.drawing.text import Colour, Font, fit
from orthogan.errors import UserError
from orthogan.evaluation.spectrum.layer_spectrum import LayerSpectrum

WHITE: Colour = (255, 255, 255)
INK: Colour = (30, 30, 34)
GREY: Colour = (110, 110, 118)
GRID: Colour = (226, 226, 230)
CURVE: Colour = (31, 95, 180)
ALARM: Colour = (190, 50, 30)
S = 2  # pixels a unit of the layout: sharp on today's screens
PLOT_WIDTH, PLOT_HEIGHT = 220 * S, 120 * S
LEFT, RIGHT, GAP = 50 * S, 16 * S, 14 * S  # of a panel: room for the tick labels
DECADES = 4.0  # below its largest value that the axis shows of each layer
MAX_COLUMNS = 6
FEW = 24  # values that are drawn as dots, each visible


def plot(
    rows: Sequence[LayerSpectrum],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    of: str = "the weight as a matrix, one row an output",
) -> Path:
    """Write a PNG of all ``rows``: sorted singular values (log axis) over their share of the count, one panel each.

    All panels have the same axes. Values that do not count for the rank,
    or lie below the axis, are counted in red.

    Raises:
        UserError: no row, a name that is not .png, or a place that cannot be written.
    """
    if not rows:
        raise UserError("nothing to draw: no layer was measured")
    check_suffix(path)
    large, small = Font(13 * S), Font(11 * S)
    low, high = _range(rows)
    columns = min(MAX_COLUMNS, len(rows), max(1, round(math.sqrt(len(rows) * 0.8))))
    lines = -(-len(rows) // columns)
    cell_width = LEFT + PLOT_WIDTH + RIGHT
    cell_height = large.line_height + 2 * small.line_height + PLOT_HEIGHT + small.line_height + GAP
    header = large.line_height + small.line_height * 2 + GAP
    # wide enough for the legend under the title
    width = max(columns * cell_width, 620 * S) + GAP
    picture = Image.new("RGB", (width, header + lines * cell_height + GAP), WHITE)
    draw = ImageDraw.Draw(picture)
    heading = f"Singular values of {title}" if title else "Singular values of each layer"
    large.draw(draw, (GAP, GAP), fit(heading, large, width - 2 * GAP), INK)
    legend = f"y: singular values of {of}; log scale, the same in every panel."
    small.draw(draw, (GAP, GAP + large.line_height), legend, GREY)
    legend = "x: place among them, 0 = largest, 1 = smallest.  A flat line is a well conditioned layer.  Dashed: 1."
    small.draw(draw, (GAP, GAP + large.line_height + small.line_height), legend, GREY)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        _panel(draw, (column * cell_width, header + GAP + line * cell_height), row, (low, high), large, small)
    return save_png(picture, path, {"orthogan": "spectrum", "subject": title})


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raises ``UserError`` unless ``path`` ends in .png; to be asked before the work."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"{path}: the picture is a PNG; give it a name that ends in .png")


def _panel(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    row: LayerSpectrum,
    limits: tuple[float, float],
    large: Font,
    small: Font,
) -> None:
    left, top = corner[0] + LEFT, corner[1]
    start = corner[0] + GAP  # of the words: left of the axis, where there is room for long names
    shape = "x".join(map(str, row.shape))
    # the shape stays whole: the end of a long name tells layers apart, so its beginning is cut
    room = left + PLOT_WIDTH - start - large.width(f"  {shape}")
    large.draw(draw, (start, top), f"{_ending(row.name or '(itself)', large, room)}  {shape}", INK)
    full = math.isfinite(row.condition_number)
    caption = f"stable rank {row.stable_rank:.1f} of {len(row.singular_values)}, condition "
    small.draw(draw, (start, top + large.line_height), caption, GREY)
    condition = f"{row.condition_number:.3g}" if full else f"infinite (rank {row.rank})"
    end = start + small.width(caption)
    small.draw(draw, (end, top + large.line_height), condition, GREY if full else ALARM)
    top += large.line_height + small.line_height + GAP // 2
    bottom, right = top + PLOT_HEIGHT, left + PLOT_WIDTH
    low, high = limits

    def y(value: float) -> float:
        return bottom - (math.log10(value) - low) / (high - low) * PLOT_HEIGHT

    for value, labelled in _ticks(low, high):
        at = y(value)
        draw.line((left, at, right, at), fill=GRID, width=S)
        if labelled:
            small.draw(draw, (left - 5 * S, at), f"{value:g}", GREY, anchor="rm")
    for share, label in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
        at = left + share * PLOT_WIDTH
        draw.line((at, top, at, bottom + 3 * S), fill=GRID, width=S)
        small.draw(draw, (at, bottom + 4 * S), label, GREY, anchor="ma")
    draw.line((left, bottom, right, bottom), fill=GREY, width=S)
    draw.line((left, top, left, bottom), fill=GREY, width=S)
    for dash in range(left, right, 9 * S):
        draw.line((dash, y(1.0), min(dash + 5 * S, right), y(1.0)), fill=INK, width=S)

    values = row.singular_values.tolist()
    shown = [v for v in values[: row.rank] if math.log10(v) >= low]
    step = PLOT_WIDTH / max(1, len(values) - 1)
    points = [(left + i * step, y(v)) for i, v in enumerate(shown)]
    if len(points) > 1:
        draw.line(points, fill=CURVE, width=2 * S, joint="curve")
    if len(values) <= FEW:
        for px, py in points:
            draw.ellipse((px - 3 * S, py - 3 * S, px + 3 * S, py + 3 * S), fill=CURVE)
    if len(shown) < len(values):
        # a falling curve leaves the upper right corner free
        where = "zero" if len(shown) == row.rank else "below the axis"
        text = f"{len(values) - len(shown)} of {len(values)} are {where}"
        small.draw(draw, (right - 4 * S, top + small.line_height / 2), text, ALARM, anchor="rm")
        draw.line((left + len(shown) * step, bottom, right, bottom), fill=ALARM, width=3 * S)


def _range(rows: Sequence[LayerSpectrum]) -> tuple[float, float]:
    """log10 of the lowest and the highest value on the axis, which has 0.5, 1 and 2 within it."""
    high, low = math.log10(2), math.log10(0.5)
    for row in rows:
        if row.rank:
            top, least = math.log10(row.sigma), math.log10(float(row.singular_values[row.rank - 1]))
            high, low = max(high, top), min(low, max(least, top - DECADES))
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[tuple[float, bool]]:
    """(value, whether it is labelled): powers of ten, and 2 and 5 between them where there is room."""
    span = high - low
    labelled = {f * 10.0**d for d in _decades(low, high) for f in ((1, 2, 5) if span < 2.2 else (1,))}
    if span > 6.5:
        labelled = {10.0**d for d in _decades(low, high) if d % 2 == 0}
    lines = [f * 10.0**d for d in _decades(low, high) for f in ((1, 2, 5) if span < 4.5 else (1,))]
    return [(v, v in labelled) for v in lines if low <= math.log10(v) <= high]


def _decades(low: float, high: float) -> range:
    return range(math.floor(low), math.ceil(high) + 1)


def _ending(text: str, font: Font, width: float) -> str:
    """``text``, cut at its beginning where it would be wider than ``width`` pixels."""
    if font.width(text) <= width:
        return text
    while text and font.width("…" + text) > width:
        text = text[1:]
    return "…" + text
