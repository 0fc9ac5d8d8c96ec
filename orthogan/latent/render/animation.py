"""The traversal as a loop, GIF, WebP or MP4: all directions side by side, swinging out and back together."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, features

from orthogan.drawing.grid import BACKGROUND, INK, default_scale, magnify
from orthogan.drawing.text import Font, fit
from orthogan.errors import UserError, install
from orthogan.io.write import write_bytes
from orthogan.latent.render.caption import TITLE, column_labels
from orthogan.latent.render.picture import ACCENT, GREY
from orthogan.latent.traverse import Traversal
from orthogan.latent.words import plain_name

PERIOD_MS = 4000  # center -> far end -> center -> near end -> center
READABLE_SIDE = 112
MARGIN = 10
GUTTER = 8
PALETTE_PIXELS = 20_000_000  # of all frames together, from which the palette of a GIF is chosen
_DESCRIPTION = 0x010E  # EXIF ImageDescription


def swing(steps: int, period_ms: int = PERIOD_MS) -> list[tuple[int, int]]:
    """One period of the loop as (column, milliseconds), from the center to the last column, the first, and back.

    The offset follows a sine, so it eases at both ends: each column is shown as long as it is the nearest to the
    sine. Times are whole hundredths of a second (the clock of GIF), at least 20 ms, and symmetric.
    """
    half = steps // 2
    # Column c is nearest while the sine is within half a column of it; arcsine converts that to time.
    edges = np.arcsin(np.clip((np.arange(half + 1) + 0.5) / half, 0, 1)) / (2 * math.pi)
    spans = np.diff(edges, prepend=-edges[0])  # the center is crossed whole, twice a period
    spans[-1] *= 2  # the end column is entered and left without a pause
    times = [max(20, round(float(span) * period_ms / 10) * 10) for span in spans]
    out = [(half + k, times[k]) for k in range(half + 1)]
    back = [(half + k, times[k]) for k in range(half - 1, -1, -1)]
    other = [(half - k, times[k]) for k in range(1, half + 1)]
    home = [(half - k, times[k]) for k in range(half - 1, 0, -1)]
    return out + back + other + home


def mosaic(traversal: Traversal, column: int, *, scale: int | None = None) -> Image.Image:
    """One frame: every row's image at ``column``, near a square, names below, the offset above.

    Random control rows come last, their names in the accent color.
    """
    rows, steps, _, height, width = traversal.frames.shape
    zoom = default_scale(height, width, READABLE_SIDE) if scale is None else scale
    heading, font = Font(15), Font(12)
    across = min(rows, math.ceil(math.sqrt(rows * 1.5)))
    down = math.ceil(rows / across)
    step_x, step_y = width * zoom + GUTTER, height * zoom + font.line_height + GUTTER
    wide = max(2 * MARGIN + across * step_x - GUTTER, 300)
    top = MARGIN + 2 * heading.line_height + 12
    picture = Image.new("RGB", (wide, top + down * step_y - GUTTER + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    heading.draw(draw, (MARGIN, MARGIN), fit(TITLE, heading, wide - 2 * MARGIN), INK)
    text = f"offset {column_labels(traversal)[column]} {traversal.unit}"
    heading.draw(draw, (MARGIN, MARGIN + heading.line_height), text, GREY)

    rail, left, right = top - 9, MARGIN + 5, wide - MARGIN - 5
    draw.line([(left, rail), (right, rail)], fill=GREY, width=1)
    draw.line([((left + right) / 2, rail - 4), ((left + right) / 2, rail + 4)], fill=GREY, width=1)
    at = left + (right - left) * column / (steps - 1)
    draw.ellipse((at - 4, rail - 4, at + 4, rail + 4), fill=ACCENT)

    indent = (wide - 2 * MARGIN - across * step_x + GUTTER) // 2
    for row in range(rows):
        x = MARGIN + indent + row % across * step_x
        y = top + row // across * step_y
        picture.paste(magnify(traversal.frames[row, column], zoom), (x, y))
        colour = ACCENT if traversal.is_control[row] else INK
        name = fit(plain_name(traversal.names[row]), font, width * zoom)
        font.draw(draw, (x + width * zoom / 2, y + height * zoom + font.line_height / 2), name, colour, anchor="mm")
    return picture


def save_animation(traversal: Traversal, path: str | os.PathLike[str]) -> Path:
    """Write an endless loop to ``.gif`` (one palette of 256 colors for all frames) or ``.webp`` (lossless).

    The metadata goes in as JSON: the comment of the GIF, the EXIF image description of the WebP.
    Raises ``UserError`` where this Pillow cannot write WebP, or for another suffix.
    """
    suffix = Path(path).suffix.lower()
    order = swing(len(traversal.offsets))
    frames = {column: mosaic(traversal, column) for column in {column for column, _ in order}}
    about = json.dumps(traversal.metadata, sort_keys=True)
    if suffix == ".gif":
        return write_bytes(path, encode_gif(frames, order, about, dither=traversal.frames.shape[2] == 3))
    if suffix == ".webp":
        return write_bytes(path, encode_webp(frames, order, about, lossless=True))
    raise UserError(f"{path}: the name of an animation must end in .gif or .webp")


def encode_gif(
    frames: Mapping[int, Image.Image], order: Sequence[tuple[int, int]], about: str, *, dither: bool
) -> bytes:
    """An endless GIF in one palette of 256 colors; ``order``: (frame, milliseconds); ``about`` is its comment."""
    flat = _one_palette(list(frames.values()), dither=dither)
    indexed = dict(zip(frames, flat, strict=True))
    return _endless(indexed, order, format="GIF", optimize=False, comment=about.encode())


def encode_webp(
    frames: Mapping[int, Image.Image], order: Sequence[tuple[int, int]], about: str, *, lossless: bool
) -> bytes:
    """An endless WebP; ``about`` is its EXIF image description. Raises ``UserError`` if Pillow cannot write WebP."""
    if not features.check("webp"):
        raise UserError("this Pillow was built without WebP; write a .gif, or reinstall Pillow")
    exif = Image.Exif()
    exif[_DESCRIPTION] = about
    return _endless(frames, order, format="WEBP", lossless=lossless, quality=90, exif=exif)


def _endless(frames: Mapping[int, Image.Image], order: Sequence[tuple[int, int]], **options: Any) -> bytes:
    """Encode the frames in ``order``, each shown for its milliseconds, as a loop; ``options``: of Pillow's format."""
    first, *rest = [frames[index] for index, _ in order]
    durations = [duration for _, duration in order]
    buffer = io.BytesIO()
    first.save(buffer, save_all=True, append_images=rest, duration=durations, loop=0, **options)
    return buffer.getvalue()


def _one_palette(frames: list[Image.Image], *, dither: bool) -> list[Image.Image]:
    """All frames in the same 256 colors, so that nothing flickers where the image stands still."""
    width, height = frames[0].size
    step = math.ceil(math.sqrt(len(frames) * width * height / PALETTE_PIXELS))  # large frames: every N-th pixel
    width, height = math.ceil(width / step), math.ceil(height / step)
    sheet = Image.new("RGB", (width, height * len(frames)))
    for index, frame in enumerate(frames):
        small = frame.resize((width, height), Image.Resampling.NEAREST) if step > 1 else frame
        sheet.paste(small, (0, index * height))
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    return [frame.quantize(palette=palette, dither=how) for frame in frames]


FPS = 50  # a frame is two ticks of the clock of ``swing``
CRF = 15  # of 0 … 51: differences that nobody sees, also where single pixels are magnified
BT709 = 1  # in the tables of ITU-T H.273: what players take for granted
TV_RANGE = 1
MARKED = {"colorspace": BT709, "color_primaries": BT709, "color_trc": BT709, "color_range": TV_RANGE}


def has_av() -> bool:
    """Whether PyAV is installed, which an .mp4 needs."""
    return importlib.util.find_spec("av") is not None


def need_av() -> None:
    """Raise ``UserError`` if PyAV is not installed, which is part of the extra ``video``."""
    if not has_av():
        raise UserError(f"an .mp4 needs PyAV: {install('video')}; .gif and .webp need no extra package")


def timeline(order: list[tuple[int, int]], fps: int = FPS) -> list[int]:
    """The column shown in each frame of one period, of (column, milliseconds) as ``swing`` gives them."""
    columns, times = zip(*order, strict=True)
    ends = np.cumsum(times)
    middles = (np.arange(round(int(ends[-1]) * fps / 1000)) + 0.5) * 1000 / fps
    return [columns[index] for index in np.searchsorted(ends, middles, side="right")]


def save_video(traversal: Traversal, path: str | os.PathLike[str]) -> Path:
    """Write one period of the loop as H.264 in yuv420p, 50 frames a second; played again and again it has no seam.

    A side of odd length gets one more line of the ground. The metadata is the comment of the file, as JSON.
    The same traversal gives the same bytes with the same libraries. Raises ``UserError`` without PyAV.
    """
    columns = timeline(swing(len(traversal.offsets)))
    frames = {column: _even(mosaic(traversal, column)) for column in set(columns)}
    about = json.dumps(traversal.metadata, sort_keys=True)
    return write_bytes(path, encode_mp4(frames, columns, about, fps=FPS, title=TITLE))


def encode_mp4(frames: Mapping[int, Image.Image], order: Sequence[int], about: str, *, fps: int, title: str) -> bytes:
    """H.264 in yuv420p of ``frames`` with even sides, in ``order``; ``about`` is its comment.

    Raises ``UserError`` without PyAV.
    """
    need_av()
    import av  # optional: an extra
    from av.video.reformatter import ColorRange, Colorspace

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "loop.mp4"
        with av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as box:
            box.metadata["title"] = title
            box.metadata["comment"] = about
            # One thread, so that the bytes do not depend on the machine.
            stream = box.add_stream("libx264", rate=fps, options={"crf": str(CRF), "threads": "1"})
            stream.width, stream.height = frames[order[0]].size
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            for name, value in MARKED.items():
                setattr(stream.codec_context, name, value)
            encoded = {
                index: av.VideoFrame.from_image(picture).reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                for index, picture in frames.items()
            }
            for tick, index in enumerate(order):
                frame = encoded[index]
                frame.pts, frame.time_base = tick, Fraction(1, fps)
                box.mux(stream.encode(frame))
            box.mux(stream.encode(None))
        return file.read_bytes()


def _even(picture: Image.Image) -> Image.Image:
    """As yuv420p needs it: colors are kept for squares of two by two pixels."""
    width, height = (size + size % 2 for size in picture.size)
    ground = Image.new("RGB", (width, height), BACKGROUND)
    ground.paste(picture)
    return ground
