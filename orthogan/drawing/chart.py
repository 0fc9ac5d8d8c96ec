"""Line charts as SVG text: lines with bands, one chart a group of lines, the same axes in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300  # of a chart [px]
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 30, 42  # room for ticks and words
ROW = 16  # height of a line of the legend
FONT = "font-family='system-ui, sans-serif'"
# Okabe & Ito's colours, which the colour-blind tell apart; the baseline is grey
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#777777"
DECADES = 2.0  # positive values that span more are shown on a log scale


@dataclass(frozen=True)
class Line:
    """A named line: points (x, low, mean, high), in order of x; ``base``: drawn grey and dashed."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    base: bool = False


@dataclass(frozen=True)
class Axes:
    """The limits of a chart; ``log``: the logarithm of y is shown."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    @classmethod
    def around(cls, lines: Sequence[Line]) -> Axes:
        """What holds all finite points of ``lines``."""
        xs = [x for line in lines for x, *_ in line.points]
        ys = [y for line in lines for point in line.points for y in point[1:] if math.isfinite(y)]
        if not xs or not ys:
            return cls((0.0, 1.0), (0.0, 1.0), False)
        low, high = min(ys), max(ys)
        log = low > 0 and math.log10(high / low) > DECADES
        if high == low:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        margin = 0.04 * (math.log10(high / low) if log else high - low)
        y = (low / 10**margin, high * 10**margin) if log else (low - margin, high + margin)
        return cls((min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1), y, log)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        (x0, x1), (y0, y1) = self.x, self.y
        if self.log:
            y, y0, y1 = math.log10(y), math.log10(y0), math.log10(y1)
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)


def chart(lines: Sequence[Line], axes: Axes, *, title: str, x_label: str) -> str:
    """One SVG element: title, axes, bands, lines, and a legend below."""
    height = HEIGHT + ROW * math.ceil(len(lines) / 2) + 6
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        f"role='img' aria-label='{escape(title, quote=True)}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='white'/>",
        _text(LEFT, 18, title, size=13, weight="bold"),
        *_grid(axes),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, anchor="middle"),
    ]
    colours = iter(COLOURS * len(lines))
    drawn = [(line, GREY if line.base else next(colours)) for line in lines]
    parts += [_band(line, axes, colour) for line, colour in drawn]
    parts += [_line(line, axes, colour) for line, colour in drawn]
    for index, (line, colour) in enumerate(drawn):
        x, y = LEFT - 40 + (index % 2) * WIDTH / 2, HEIGHT + ROW * (index // 2) + 10
        parts.append(f"<path d='M{x:.0f} {y - 4:.0f}h22' {_stroke(line, colour)}/>")
        parts.append(_text(x + 28, y, line.name))
    return "\n".join([*parts, "</svg>"])


def _grid(axes: Axes) -> list[str]:
    parts = []
    for value in ticks(*axes.y, log=axes.log):
        _, y = axes.place(axes.x[0], value)
        parts.append(f"<path d='M{LEFT} {y:.1f}H{WIDTH - RIGHT}' stroke='#e4e4e8'/>")
        parts.append(_text(LEFT - 6, y + 4, _short(value), anchor="end"))
    for value in ticks(*axes.x, log=False):
        x, _ = axes.place(value, axes.y[0])
        parts.append(f"<path d='M{x:.1f} {TOP}V{HEIGHT - BOTTOM}' stroke='#e4e4e8'/>")
        parts.append(_text(x, HEIGHT - BOTTOM + 15, _short(value), anchor="middle"))
    return parts


def _band(line: Line, axes: Axes, colour: str) -> str:
    """Lowest to highest, where both can be shown."""
    shown = [(x, a, b) for x, a, _, b in line.points if _visible(a, axes) and _visible(b, axes)]
    if len(shown) < 2 or all(a == b for _, a, b in shown):
        return ""
    there = [axes.place(x, b) for x, _, b in shown] + [axes.place(x, a) for x, a, _ in reversed(shown)]
    return f"<polygon points='{_points(there)}' fill='{colour}' fill-opacity='0.14'/>"


def _line(line: Line, axes: Axes, colour: str) -> str:
    """The mean; it is interrupted where it is not finite."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, _, y, _ in line.points:
        if _visible(y, axes):
            pieces[-1].append(axes.place(x, y))
        elif pieces[-1]:
            pieces.append([])
    drawn = []
    for piece in pieces:
        if len(piece) == 1:
            drawn.append(f"<circle cx='{piece[0][0]:.1f}' cy='{piece[0][1]:.1f}' r='3' fill='{colour}'/>")
        elif piece:
            drawn.append(f"<polyline points='{_points(piece)}' {_stroke(line, colour)}/>")
    return "\n".join(drawn)


def _visible(value: float, axes: Axes) -> bool:
    return math.isfinite(value) and (value > 0 or not axes.log)


def _stroke(line: Line, colour: str) -> str:
    dash = " stroke-dasharray='5 3'" if line.base else ""
    return f"fill='none' stroke='{colour}' stroke-width='1.8' stroke-linejoin='round'{dash}"


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 11, weight: str = "normal") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' "
        f"fill='#222226'>{escape(words)}</text>"
    )


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round values from ``low`` to ``high``: powers of ten on a log axis, else steps of 1, 2 or 5 times one."""
    if log:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / 7))]]
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    """A tick's label: 150k, 2M, 0.05."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
