"""A traversal as one self-contained page, with a slider for each direction over pre-rendered frames.

The page needs no server and no network: the frames of each row are one PNG strip in a data URI, and its security policy
prevents loading anything else. The template is ``page.html`` beside this file.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from orthogan.drawing.grid import default_scale, to_picture
from orthogan.drawing.notebook import html_frame
from orthogan.io.write import write_bytes
from orthogan.latent.render.animation import swing
from orthogan.latent.render.caption import TITLE, column_labels, score_lines, subtitle
from orthogan.latent.render.picture import ceiling, differences, palette
from orthogan.latent.traverse import Traversal
from orthogan.latent.words import describe_effect, plain_name

READABLE_SIDE = 160  # CSS pixels
LEAST_CARD = 190
USUAL_WINDOW, MOST_FRAME = 900, 720  # of a notebook [CSS pixels]
COMPARED = (
    "A direction is meaningful if it changes the picture more, or in a more specific way, than the random ones do."
)


def strip_uri(frames: np.ndarray) -> str:
    """``frames`` uint8 (steps, c, h, w) side by side as one PNG (lossless, original size) in a data URI."""
    return _png_uri(to_picture(np.concatenate(list(frames), axis=2)))


def _png_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def heat_uri(heat: np.ndarray, top: float) -> str:
    """The map (h, w) in its colors, as one PNG in a data URI."""
    picture = Image.fromarray(np.rint(np.clip(heat / top, 0, 1) * 255).astype(np.uint8), mode="P")
    picture.putpalette(palette().tobytes())
    return _png_uri(picture)


def render_html(traversal: Traversal, *, heatmap: bool = False) -> str:
    """Return the page as text. Names, notes and metadata are escaped, because they may contain any characters.

    ``heatmap``: show the maps of differences initially; they are always included.
    """
    rows, steps, _, height, width = traversal.frames.shape
    zoom = default_scale(height, width, READABLE_SIDE)
    shown = width * zoom
    heats = differences(traversal)
    top = ceiling(heats)
    data = {
        "labels": column_labels(traversal),
        "swing": swing(steps),
        "strips": [strip_uri(frames) for frames in traversal.frames],
        "heats": [heat_uri(heat, top) for heat in heats],
        "maps": heatmap,
    }
    sections = [[row for row in range(rows) if bool(traversal.is_control[row]) is control] for control in (False, True)]
    parts: list[str] = []
    for members, heading in zip(sections, ("Directions", "Random directions, for comparison"), strict=True):
        if members:
            items = "\n".join(_row(traversal, row) for row in members)
            parts.append(f'<section><h2>{heading}</h2>\n<ul class="rows">\n{items}\n</ul></section>')
    values = {
        "TITLE": escape(TITLE),
        "SUBTITLE": escape(subtitle(traversal)),
        "CARD": str(max(LEAST_CARD, shown + 22)),
        "WIDTH": str(shown),
        "HEIGHT": str(height * zoom),
        "STRIP": str(100 * steps),
        "ICON": _icon(),
        "RANDOM": f" {COMPARED}" if traversal.is_control.any() else "",
        "GRADIENT": ", ".join("#" + bytes(shade).hex() for shade in palette()[::17]),
        "TOP": f"{top:g}",
        "LAST": str(steps - 1),
        "MIDDLE": str(traversal.centre),
        "ROWS": "\n".join(parts),
        "ABOUT": "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in traversal.metadata.items() if value
        ),
        "DATA": json.dumps(data),  # only numbers and base64, which cannot end a script element
    }
    template = resources.files("orthogan.latent.render").joinpath("page.html").read_text(encoding="utf-8")
    # One pass over the template, so that values are not searched for placeholders.
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], template)


def render_frame(traversal: Traversal) -> str:
    """Return the page in a frame of a notebook, as high as its rows in a usual window need, at most ``MOST_FRAME``."""
    rows, _, _, height, width = traversal.frames.shape
    zoom = default_scale(height, width, READABLE_SIDE)
    across = max(1, USUAL_WINDOW // (max(LEAST_CARD, width * zoom + 22) + 14))
    lines = -(-rows // across)
    return html_frame(render_html(traversal), min(MOST_FRAME, 330 + lines * (height * zoom + 130)))


def _row(traversal: Traversal, row: int) -> str:
    name = escape(plain_name(traversal.names[row]))
    own = "" if name == escape(traversal.names[row]) else f"{escape(traversal.names[row])}: "
    scores = own + escape(", ".join(score_lines(traversal, row)))
    words = escape(traversal.notes[row] or _effect(traversal, row))
    centre, last = traversal.centre, len(traversal.offsets) - 1
    return (
        f'<li data-row="{row}" data-name="{name}">\n'
        f'<div class="picture" role="img" aria-label="{name} at 0"></div>\n'
        f'<div class="heat" role="img" aria-label="where {name} changes the picture"></div>\n'
        f'<div class="name"><span>{name}</span><output for="slider{row}">0</output></div>\n'
        f'<input type="range" id="slider{row}" min="0" max="{last}" step="1" value="{centre}"'
        f' aria-label="{name}" aria-valuetext="0">\n'
        f'<p class="notes quiet">{words}</p>\n'
        f'<details><summary>Details</summary><p class="scores quiet">{scores}</p></details>\n</li>'
    )


def _effect(traversal: Traversal, row: int) -> str:
    """A sentence about what the direction changes here, from the columns that are nearest to offsets of -1 and 1."""
    ends = [int(np.abs(traversal.offsets - side).argmin()) for side in (-1, 1)]
    low, middle, high = (traversal.frames[row, [column]] for column in (ends[0], traversal.centre, ends[1]))
    return describe_effect(low, middle, high)


def _icon() -> str:
    """A small picture for the tab of the browser."""
    icon = Image.new("RGB", (32, 32), "#b93a14")
    draw = ImageDraw.Draw(icon)
    draw.line([(7, 8), (7, 24), (24, 24)], fill="#ffffff", width=3)
    draw.ellipse((13, 7, 23, 17), fill="#ffd9c7")
    return _png_uri(icon)


def save_html(traversal: Traversal, path: str | os.PathLike[str], *, heatmap: bool = False) -> Path:
    """Write ``render_html`` as UTF-8, atomically."""
    return write_bytes(path, render_html(traversal, heatmap=heatmap).encode())
