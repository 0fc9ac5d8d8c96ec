"""Histograms of several nets over one another, one panel for each thing that was measured, drawn with Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from orthogan.drawing.grid import save_png
from orthogan.drawing.spectrum import GREY, GRID, INK, WHITE, S, check_suffix
from orthogan.drawing.text import Colour, Font, fit
from orthogan.errors import UserError

# told apart by people of any colour vision (Okabe & Ito 2008), and black
COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
    (150, 120, 40),
)
WIDTH, HEIGHT = 560 * S, 150 * S  # of the area of a panel
LEFT, RIGHT, GAP = 46 * S, 20 * S, 14 * S
BINS = 60
TICKS = 10  # about so many on the axis
SWATCH = 22 * S
Panels = Mapping[str, Mapping[str, np.ndarray]]  # panel -> series -> values (n,)


def plot(panels: Panels, path: str | os.PathLike[str], *, title: str, axis: str, shared: bool = True) -> Path:
    """Write a PNG with a panel for each of ``panels``, in it a histogram of each series and its mean as a dashed line.

    A series has the same colour in all panels; y is the share of its values in each of 60 equal bins.

    Args:
        axis: what the values are, in words.
        shared: all panels have one x axis; else each has its own.

    Raises:
        UserError: nothing to draw, values that are not finite, more than eight series, a name that is not .png.
    """
    check_suffix(path)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    _check(panels, names)
    large, small = Font(13 * S), Font(11 * S)
    colours = dict(zip(names, COLOURS, strict=False))
    width = LEFT + WIDTH + RIGHT
    legend = _rows(names, small, width - 2 * GAP)
    header = GAP + large.line_height + small.line_height * (1 + len(legend)) + GAP
    cell = large.line_height + HEIGHT + small.line_height + 2 * GAP
    picture = Image.new("RGB", (width, header + len(panels) * cell), WHITE)
    draw = ImageDraw.Draw(picture)
    large.draw(draw, (GAP, GAP), fit(title, large, width - 2 * GAP), INK)
    said = f"x: {axis}.  y: share of the values in a bin.  Dashed: mean."
    small.draw(draw, (GAP, GAP + large.line_height), fit(said, small, width - 2 * GAP), GREY)
    for line, row in enumerate(legend):
        y = GAP + large.line_height + (line + 1.6) * small.line_height
        for x, name in row:
            draw.line((GAP + x, y, GAP + x + SWATCH - 6 * S, y), fill=colours[name], width=3 * S)
            small.draw(draw, (GAP + x + SWATCH, y), name, INK, anchor="lm")
    everything = _limits([values for series in panels.values() for values in series.values()])
    for index, (name, series) in enumerate(panels.items()):
        limits = everything if shared else _limits(list(series.values()))
        _panel(draw, header + index * cell, name, series, colours, limits, large, small)
    return save_png(picture, path, {"orthogan": "histograms", "subject": title})


def _check(panels: Panels, names: list[str]) -> None:
    if not names:
        raise UserError("nothing to draw: there are no values")
    if len(names) > len(COLOURS):
        raise UserError(f"{len(names)} histograms over one another cannot be told apart: draw at most {len(COLOURS)}")
    for panel, series in panels.items():
        for name, values in series.items():
            if not len(values) or not np.isfinite(values).all():
                raise UserError(f"{panel}, {name}: no values, or such as are NaN or infinite, cannot be drawn")


def _rows(names: list[str], font: Font, width: float) -> list[list[tuple[float, str]]]:
    """The legend: for each line the place and the name of its series."""
    rows: list[list[tuple[float, str]]] = [[]]
    at = 0.0
    for name in names:
        needed = SWATCH + font.width(name) + 18 * S
        if rows[-1] and at + needed > width:
            rows.append([])
            at = 0.0
        rows[-1].append((at, name))
        at += needed
    return rows


def _limits(values: list[np.ndarray]) -> tuple[float, float]:
    """The least and the largest value; some room where they are one."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = 0.5 * abs(low) or 0.5
    return low - room, high + room


def _panel(
    draw: ImageDraw.ImageDraw,
    top: int,
    name: str,
    series: Mapping[str, np.ndarray],
    colours: Mapping[str, Colour],
    limits: tuple[float, float],
    large: Font,
    small: Font,
) -> None:
    large.draw(draw, (GAP, top), name, INK)
    top += large.line_height
    bottom, left, right = top + HEIGHT, LEFT, LEFT + WIDTH
    low, high = limits
    shares = {key: np.histogram(values, BINS, limits)[0] / len(values) for key, values in series.items()}
    most = max(float(share.max()) for share in shares.values())

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * WIDTH

    def y(share: float) -> float:
        return bottom - 0.94 * share / most * HEIGHT

    for value in _ticks(low, high):
        draw.line((x(value), top, x(value), bottom + 3 * S), fill=GRID, width=S)
        small.draw(draw, (x(value), bottom + 4 * S), f"{value:g}", GREY, anchor="ma")
    small.draw(draw, (left - 5 * S, y(most)), f"{most:.2g}", GREY, anchor="rm")
    draw.line((left, y(most), right, y(most)), fill=GRID, width=S)
    draw.line((left, bottom, right, bottom), fill=GREY, width=S)
    draw.line((left, top, left, bottom), fill=GREY, width=S)
    edges = np.linspace(left, right, BINS + 1)
    for row, (key, share) in enumerate(shares.items()):
        first, last = np.flatnonzero(share)[[0, -1]]  # where there are no values at all is no line
        corners = [(e, y(float(share[i]))) for i in range(first, last + 1) for e in edges[i : i + 2]]
        outline = [(edges[first], bottom), *corners, (edges[last + 1], bottom)]
        draw.line(outline, fill=colours[key], width=2 * S, joint="curve")
        mean = float(series[key].mean())
        for dash in range(top, bottom, 9 * S):
            draw.line((x(mean), dash, x(mean), min(dash + 5 * S, bottom)), fill=colours[key], width=S)
        at = (right - 4 * S, top + (row + 0.6) * small.line_height)
        small.draw(draw, at, f"mean {mean:.3g}", colours[key], anchor="rm")


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(f * decade for f in (1, 2, 5, 10) if f * decade >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
