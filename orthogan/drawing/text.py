"""Text in images, with Pillow's built-in font, which needs no file but lacks some characters."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

from PIL import ImageDraw, ImageFont

# Characters that are missing from Pillow's built-in font would appear as empty boxes.
_SPELLED = str.maketrans(
    {"\N{MINUS SIGN}": "-", "σ": "sigma ", "Δ": "change ", "×": "x", "≥": ">=", "≤": "<=", "→": "->"}
)
ELLIPSIS = "…"

Anchor = Literal["lm", "mm", "rm", "la", "ma", "ra"]
Colour = tuple[int, int, int]


class Font:
    """Pillow's built-in font in one ``size`` in pixels; missing characters are spelled out."""

    def __init__(self, size: int) -> None:
        self._font = ImageFont.load_default(size)
        self.line_height = round(size * 1.4)

    def width(self, text: str) -> float:
        """Return the width of ``text`` on one line in pixels."""
        return self._font.getlength(text.translate(_SPELLED))

    def draw(
        self, draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: Colour, *, anchor: Anchor = "la"
    ) -> None:
        """Draw one line of ``text`` with its ``anchor`` (Pillow's two letters) at ``at``."""
        draw.text(at, text.translate(_SPELLED), fill=colour, font=self._font, anchor=anchor)


def fit(text: str, font: Font, width: float) -> str:
    """Shorten ``text`` with an ellipsis if it is wider than ``width`` pixels."""
    line = " ".join(text.split())
    if font.width(line) <= width:
        return line
    most = bisect_right(range(len(line)), width, key=lambda end: font.width(line[:end] + ELLIPSIS)) - 1
    return line[: max(most, 0)].rstrip() + ELLIPSIS


def signed(value: float) -> str:
    """Format an offset as a label: ``-1.5``, ``0``, ``+3``, with at most three significant digits."""
    text = f"{value:+.3g}"
    return "0" if float(text) == 0 else text
